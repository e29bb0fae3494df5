"""What can be set when pictures become records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from densenet_keras.settings.setting import Rule, at_least, between, flag


@dataclass(frozen=True)
class PrepareOptions:
    """Prepare: from pictures to a data set.

    Turns pictures into the TFRecord shards that every command reads. PICTURES is a folder with one folder
    for each class; or one with train and val folders of that kind; or the folder of ImageNet's tar files as
    they are downloaded; or a CSV file with the columns path, label and perhaps split. The same command again
    goes on behind the last whole shard.
    """

    pictures: str = flag("", "folder, or CSV file, of the pictures", positional=True, metavar="PICTURES")
    data_dir: str = flag(
        "",
        "folder to write the data set to; it is made",
        metavar="DIR",
        rule=Rule(lambda value: value != "", "must be given: the folder to write to"),
    )
    validation_share: float = flag(
        0.1, "share of each class that is held out for validation, where the source has no validation part",
        rule=Rule(lambda value: 0 < value < 1, "must be greater than 0 and less than 1"),
    )  # fmt: skip
    validation_labels: str = flag(
        "", "classes of ImageNet's validation pictures: a synset a line in file order (TF-Slim's "
        "imagenet_2012_validation_synset_labels.txt), or Kaggle's LOC_val_solution.csv", metavar="FILE",
    )  # fmt: skip
    class_names: str = flag(
        "", "what the class folders stand for, a line `folder name` for each, such as Kaggle's "
        "LOC_synset_mapping.txt or TF-Slim's imagenet_metadata.txt", metavar="FILE",
    )  # fmt: skip
    short_side: Optional[int] = flag(
        None, "pixels to which the shorter side of larger pictures is shrunk", rule=at_least(32)
    )
    quality: int = flag(
        95, "JPEG quality of the pictures that must be written anew",
        rule=between(1, 101, "must be at least 1 and at most 100"),
    )  # fmt: skip
    train_shards: Optional[int] = flag(
        None, "files of the training split; default: one for each 128 MB", rule=at_least(1)
    )
    validation_shards: Optional[int] = flag(
        None, "files of the validation split; default: one for each 128 MB", rule=at_least(1)
    )
    seed: int = flag(
        0, "decides the order of the pictures in the shards, and which are held out",
        rule=between(0, 2**31, "must be at least 0 and less than 2147483648"),
    )  # fmt: skip
    max_left_out_share: float = flag(
        0.01, "share of pictures that may be left out because they cannot be used; with more nothing is "
        "published", rule=Rule(lambda value: 0 <= value <= 1, "must be at least 0 and at most 1"),
    )  # fmt: skip
    data_threads: Optional[int] = flag(
        None, "pictures that are worked on at the same time; default: the number of cores", rule=at_least(1)
    )
