"""Records that are whole and cannot be used: what is stored in them is said, and all are named at once."""

import re

import numpy as np
import pytest

from densenet_keras.data import records, tfrecord
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import UsageError
from tests.support import records as fake

JPEG = fake.encode(np.zeros((4, 4, 3), np.uint8))
GOOD = fake.example(JPEG, 1)


def refusal(folder, payloads, shards=1):
    fake.write_split(folder, "train", payloads, shards=shards)
    with pytest.raises(UsageError) as caught:
        records.open_split(str(folder), "train")
    return str(caught.value)


@pytest.mark.parametrize(("features", "said"), [
    ({"image/encoded": JPEG, "image/class/label": 5.0}, "image/class/label must .* it holds 1 float;"),
    ({"image/encoded": JPEG, "image/class/label": b"5"}, "it holds a byte string b'5' of 1 bytes"),
    ({"image/encoded": 3, "image/class/label": 1}, "image/encoded must .* it holds 1 integer"),
    ({"image/encoded": b"", "image/class/label": 1}, "it is empty"),
    ({"image": b"a" * 99, "label": 4}, r"no image/encoded; it holds image \(a byte string of 99 bytes\), "),
    ({"image/encoded": JPEG, "label": 4}, r"no image/class/label; .*label \(1 integer\)"),
    ({}, "no image/encoded; it holds nothing"),
])  # fmt: skip
def test_what_is_stored_is_said(tmp_path, features, said):
    text = refusal(tmp_path, [tfrecord.encode_example(features)])
    assert re.search(said, text), text
    assert "copy the file" not in text


@pytest.mark.parametrize(("integers", "said"), [([1, 2], "it holds 2 integers"), ([], "it holds nothing")])
def test_not_exactly_one_label_is_counted(tmp_path, integers, said):
    import tensorflow as tf

    example = tf.train.Example.FromString(fake.example(JPEG, 1))
    del example.features.feature["image/class/label"].int64_list.value[:]
    example.features.feature["image/class/label"].int64_list.value.extend(integers)
    assert said in refusal(tmp_path, [example.SerializeToString()])


def test_every_bad_record_is_named_by_one_command(tmp_path):
    gif = fake.example(fake.encode(np.zeros((4, 4, 3), np.uint8), "gif"), 1)
    payloads = [gif if number in (2, 5, 9) else GOOD for number in range(12)]
    text = refusal(tmp_path, payloads, shards=2)
    assert [part.split(" at")[0] for part in text.split("record ")[1:]] == ["1", "2", "4"]
    assert "3 records" in text
    assert "GIF" in text


def test_no_more_than_twenty_are_named(tmp_path):
    text = refusal(tmp_path, [fake.example(JPEG, 1.5)] * 50)
    assert text.count("record ") == 20
    assert text.startswith("the first 20 records")


def test_damage_and_what_cannot_be_used_have_a_remedy_each(tmp_path):
    paths = fake.write_split(tmp_path, "train", [GOOD, fake.example(JPEG, 1.5), GOOD, GOOD], shards=2)
    with open(paths[0], "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    text = refusal_of(tmp_path)
    assert text.count("record ") == 2
    assert "copy the file again" in text
    assert "write the shard anew without it" in text


def refusal_of(folder):
    with pytest.raises(UsageError) as caught:
        records.open_split(str(folder), "train")
    return str(caught.value)


def test_a_negative_label_is_no_class_and_the_advice_can_be_followed(tmp_path):
    fake.write_split(tmp_path, "train", [GOOD, fake.example(JPEG, -1)])
    split = records.open_split(str(tmp_path), "train")
    with pytest.raises(UsageError, match="label -1 .*label from 0 on") as caught:
        records.check_labels(split, label_offset=1, num_classes=10)
    assert "--label_offset -" not in str(caught.value)


@pytest.mark.parametrize(("files", "said"), [
    (["flowers_train_00000-of-00005.tfrecord"], "rename .*to train-00000-of-00005"),
    (["train-00000-of-00002.gz"], "gunzip"),
    (["train/x"], "one folder"),
    (["pictures.zip"], "give the folder"),
    (["train-00000-of-99999999999"], "no set has more than"),
])  # fmt: skip
def test_shards_under_other_names_get_the_way_to_right_ones(tmp_path, files, said):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=said):
        find_shards(str(tmp_path), "train")


def test_val_is_validation_under_another_name(tmp_path):
    (tmp_path / "val-00000-of-00001").touch()
    with pytest.raises(UsageError, match="val-00000-of-00001 to validation-00000-of-00001"):
        find_shards(str(tmp_path), "validation")
