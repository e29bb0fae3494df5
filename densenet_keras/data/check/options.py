"""What can be set when a data set is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from densenet_keras.settings.setting import Rule, at_least, flag


@dataclass(frozen=True)
class CheckOptions:
    """Check: what is wrong with a data set.

    Reads every record of a data set, of any origin: checksums, pictures (decoded as training does), labels
    and names, pictures that are there twice. Exit code 1 if something is wrong that training or evaluation
    would suffer from.
    """

    data_dir: str = flag(
        "", "folder of the TFRecord shards train-* and validation-*", metavar="DIR",
        rule=Rule(lambda value: value != "", "must be given: the folder of the data set"),
    )  # fmt: skip
    label_offset: int = flag(1, "label of the first class in the records", rule=at_least(0))
    num_classes: Optional[int] = flag(
        None, "classes that there should be; default: as many as labels.txt names", rule=at_least(2)
    )
    json: str = flag("", "file to write all that was found to", metavar="FILE")
    data_threads: Optional[int] = flag(
        None, "pictures that are decoded at the same time; default: the number of cores", rule=at_least(1)
    )
