"""Where a data set's class names come from, and what is refused."""

import numpy as np
import pytest

from densenet_keras.data import classes, records, tfrecord
from densenet_keras.errors import UsageError
from tests.support import records as fake

JPEG = fake.encode(np.zeros((4, 4, 3), np.uint8))


def data_set(folder, texts, label_offset=1, shards=1):
    """A training split with one record for each (class, text); opened."""
    payloads = [
        fake.example(JPEG, number + label_offset, **({} if text is None else {classes.TEXT_KEY: text}))
        for number, text in texts
    ]
    fake.write_split(folder, "train", payloads, shards)
    return records.open_split(str(folder), "train")


def labels(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / classes.LABELS_FILE).write_text(content, encoding="utf-8")
    return str(folder)


def test_labels_txt_names_the_classes(tmp_path):
    folder = labels(tmp_path, "1:cat\n2:dog: a good one\n3:Vogel größer\n")
    found = classes.find(folder, 1)
    assert found == classes.Classes(3, ("cat", "dog: a good one", "Vogel größer"))
    assert found.name(1) == "dog: a good one"


def test_what_is_written_is_read_again(tmp_path):
    names = ("cat", "2:dog", "über")
    folder = labels(tmp_path, classes.labels_text(names, 1))
    assert classes.find(folder, 1).names == names


def test_a_list_of_bare_names_starts_at_the_first_class(tmp_path):
    assert classes.find(labels(tmp_path, "\ufeffcat\r\ndog\r\n\r\n"), 1).names == ("cat", "dog")


def test_the_background_class_of_tf_slim_is_left_out(tmp_path):
    assert classes.find(labels(tmp_path, "0:background\n1:tench\n2:shark\n"), 1).names == ("tench", "shark")
    assert classes.find(labels(tmp_path, "0:daisy\n1:tulip\n"), 0).names == ("daisy", "tulip")


def test_a_gap_leaves_the_count_and_no_names(tmp_path):
    found = classes.find(labels(tmp_path, "1:cat\n3:dog\n"), 1)
    assert found == classes.Classes(3, None)
    assert found.name(2) == "2"


@pytest.mark.parametrize(("content", "words"), [
    ("", "empty"), ("1:cat\n1:dog\n", "label 1 twice"), ("0:cat\n", "give --label_offset 0"),
])  # fmt: skip
def test_a_file_that_names_nothing_usable_is_refused(tmp_path, content, words):
    with pytest.raises(UsageError, match=words):
        classes.find(labels(tmp_path, content), 1)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / classes.LABELS_FILE).write_bytes(b"1:\xff\xfe\n")
    with pytest.raises(UsageError, match="UTF-8"):
        classes.find(str(tmp_path), 1)


def test_labels_that_the_file_does_not_name_are_refused(tmp_path):
    split = data_set(tmp_path, [(0, "a"), (4, "e")])
    with pytest.raises(UsageError, match="names the labels 1 to 2, but records .* hold label 5"):
        classes.find(labels(tmp_path, "1:a\n2:b\n"), 1, [split])


def test_without_the_file_the_records_name_the_classes(tmp_path):
    texts = [(number % 3, ["cat", "dog", "owl"][number % 3]) for number in range(20)]
    split = data_set(tmp_path, texts, shards=3)
    assert classes.find(str(tmp_path), 1, [split]) == classes.Classes(3, ("cat", "dog", "owl"))


@pytest.mark.parametrize("texts", [
    [(0, "cat"), (0, "dog"), (1, "owl")],  # two names for one class
    [(0, "cat"), (1, None)],  # none
    [(0, "cat"), (1, "cat")],  # one name for two classes
    [(0, "cat"), (2, "owl")],  # no record of a class between
])  # fmt: skip
def test_records_that_contradict_each_other_name_nothing(tmp_path, texts):
    split = data_set(tmp_path, texts)
    found = classes.find(str(tmp_path), 1, [split])
    assert found == classes.Classes(1 + max(number for number, _ in texts), None)


def test_neither_file_nor_records_is_refused(tmp_path):
    with pytest.raises(UsageError, match="labels.txt does not exist"):
        classes.find(str(tmp_path), 1)


def test_all_features_of_an_example_are_read():
    features = {"a": b"bytes", "b": "text", "c": -3, "d": 0.5}
    payload = tfrecord.encode_example(features)
    assert tfrecord.read_example(payload) == {"a": [b"bytes"], "b": [b"text"], "c": [-3], "d": [0.5]}


def test_lists_that_tensorflow_wrote_are_read():
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature["i"].int64_list.value.extend([1, -2, 300])
    example.features.feature["f"].float_list.value.extend([0.5, -1.0])
    example.features.feature["b"].bytes_list.value.extend([b"", b"x"])
    example.features.feature["none"].CopyFrom(tf.train.Feature())
    read = tfrecord.read_example(example.SerializeToString())
    assert read == {"i": [1, -2, 300], "f": [0.5, -1.0], "b": [b"", b"x"], "none": []}
