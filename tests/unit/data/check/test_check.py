"""Everything that can be wrong with a data set is found, with file and record, and nothing else is."""

import os

import numpy as np
import pytest
from PIL import Image

from densenet_keras.data import tfrecord
from densenet_keras.data.check import job
from densenet_keras.data.check.options import CheckOptions
from densenet_keras.errors import UsageError
from tests.support import pictures
from tests.support import records as fake


def payload(number, label, **more):
    """A record of its own picture with everything said and right."""
    features = {
        "image/height": 12, "image/width": 10, "image/format": "JPEG", "image/class/text": f"class {label}",
    }  # fmt: skip
    features.update({name.replace("__", "/"): value for name, value in more.items()})
    return fake.example(more.pop("encoded", pictures.jpeg(number)), label, **{
        name: value for name, value in features.items() if name != "encoded" and value is not None
    })  # fmt: skip


def data_set(folder, train=(), validation=(), shards=2):
    """A sound set of two classes, and these records behind it."""
    sound = [payload(number, 1 + number % 2) for number in range(8)]
    fake.write_split(folder, "train", [*sound, *train], shards)
    sound = [payload(100 + number, 1 + number % 2) for number in range(4)]
    fake.write_split(folder, "validation", [*sound, *validation], 1)
    return str(folder)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def check(folder, **settings):
    return job.check(CheckOptions(data_dir=str(folder), data_threads=2, **settings))


def found(report):
    """(level, kind) of each finding."""
    return [(finding.level, finding.kind) for finding in report.findings.kept]


def the_finding(report):
    assert len(report.findings.kept) == 1, [str(finding) for finding in report.findings.kept]
    return report.findings.kept[0]


def test_a_sound_data_set_has_no_findings_and_is_counted(tmp_path):
    report = check(data_set(tmp_path))
    assert found(report) == []
    stored = report.to_json()
    assert stored["splits"]["train"]["records"] == 8
    assert stored["splits"]["train"]["labels"] == {"1": 4, "2": 4}
    assert stored["splits"]["validation"]["formats"] == {"JPEG colour": 4}
    assert stored["splits"]["validation"]["size_percentiles"]["short_side"] == dict.fromkeys(
        ("0", "5", "50", "95", "100"), 10
    )
    assert [shard["records"] for shard in stored["splits"]["train"]["shards"]] == [4, 4]


def test_kinds_of_pictures_are_told_apart(tmp_path):
    image = Image.fromarray(pictures.picture(50))
    made = [
        fake.encode(image.convert("L")), fake.encode(image.convert("CMYK")), fake.encode(image, "png"),
        fake.encode(image.convert("RGBA"), "png"),
    ]  # fmt: skip
    folder = data_set(tmp_path, [payload(0, 1, encoded=data, image__format=None) for data in made])
    report = check(folder)
    assert found(report) == []
    assert report.tally.splits["train"].kinds == {
        "JPEG colour": 8, "JPEG grey": 1, "JPEG CMYK": 1, "PNG colour": 1, "PNG colour with alpha": 1
    }  # fmt: skip


# One record


def test_a_damaged_record_is_named_and_those_behind_it_are_read(tmp_path):
    folder = data_set(tmp_path)
    path = os.path.join(folder, "train-00001-of-00002")
    data = bytearray(read(path))
    size = len(tfrecord.frame(payload(1, 2)))
    data[size + 100] ^= 1
    pictures.write(path, bytes(data))
    report = check(folder)
    finding = the_finding(report)
    assert (finding.level, finding.kind) == ("error", "damaged record")
    assert finding.place == ("train", path, 1, size)
    assert report.tally.splits["train"].records == [4, 4]


def test_a_shard_that_is_cut_off_is_named(tmp_path):
    folder = data_set(tmp_path)
    path = os.path.join(folder, "train-00000-of-00002")
    pictures.write(path, read(path)[:-50])
    report = check(folder)
    finding = the_finding(report)
    assert (finding.kind, finding.place.record) == ("damaged shard", 3)
    assert report.tally.splits["train"].records == [3, 4]


@pytest.mark.parametrize(("more", "kind", "words"), [
    ({"encoded": pictures.jpeg(1)[:-40]}, "undecodable picture", "cut off"),
    ({"encoded": b""}, "undecodable picture", "empty"),
    ({"encoded": b"<html>"}, "undecodable picture", "HTML"),
    ({"encoded": fake.encode(pictures.picture(60), "gif")}, "undecodable picture", "GIF"),
    ({"image__height": 500}, "wrong size", "says 10x500 pixels, the picture is 10x12"),
    ({"image__format": "PNG"}, "wrong format", "says PNG, the picture is JPEG"),
    ({"image__class__text": "other"}, "contradicting names", "'other' here and 'class 1' in"),
])  # fmt: skip
def test_a_record_that_is_wrong_is_named(tmp_path, more, kind, words):
    folder = data_set(tmp_path, [payload(50, 1, **more)])
    finding = the_finding(check(folder))
    assert finding.kind == kind
    assert words in finding.message
    assert finding.place[:3] == ("train", os.path.join(folder, "train-00000-of-00002"), 4)


@pytest.mark.parametrize(("features", "kind", "words"), [
    ({"image/encoded": pictures.jpeg(1)}, "no label", "no image/class/label; the keys are image/encoded"),
    ({"image/encoded": pictures.jpeg(1), "image/class/label": 5.0}, "no label", "holds a float"),
    ({"image/encoded": pictures.jpeg(1), "image/class/label": b"5"}, "no label", "holds bytes (text)"),
    ({"image/class/label": 1, "image": pictures.jpeg(1)}, "no picture", "keys are image, image/class/label"),
    ({"image/class/label": 1, "image/encoded": 3}, "no picture", "holds a whole number"),
])  # fmt: skip
def test_what_a_record_holds_instead_is_said(tmp_path, features, kind, words):
    report = check(data_set(tmp_path, [tfrecord.encode_example(features)]))
    finding = next(finding for finding in report.findings.kept if finding.kind == kind)
    assert finding.level == "error"
    assert words in finding.message
    assert finding.place.record == 4


def test_bytes_that_are_no_example_are_named(tmp_path):
    finding = the_finding(check(data_set(tmp_path, [b"\xff\xff\xff"])))
    assert (finding.kind, finding.place.record) == ("damaged record", 4)


# Labels and names


@pytest.mark.parametrize(("label", "kind", "words"), [
    (0, "label 0", "label 0, which 3 train records have, is what TF-Slim calls the background class"),
    (-1, "negative label", "-1 for unlabelled"),
    (3, "label out of range", "above 2, the last of 2"),
])  # fmt: skip
def test_labels_that_are_no_class_are_found_once_with_their_number(tmp_path, label, kind, words):
    folder = data_set(tmp_path, [payload(50 + number, label) for number in range(3)])
    finding = the_finding(check(folder, num_classes=2))
    assert (finding.level, finding.kind) == ("error", kind)
    assert words in finding.message
    assert finding.place.record == 4


def test_labels_from_0_are_in_order_where_the_first_class_is_0(tmp_path):
    fake.write_split(tmp_path, "train", [payload(number, number % 2) for number in range(6)])
    fake.write_split(tmp_path, "validation", [payload(100 + number, number % 2) for number in range(6)])
    assert found(check(tmp_path, label_offset=0)) == []
    assert ("error", "label 0") in found(check(tmp_path))


def test_the_classes_of_labels_txt_are_those_there_should_be(tmp_path):
    folder = data_set(tmp_path)
    pictures.write(tmp_path / "labels.txt", b"1:class 1\n2:class 2\n3:class 3\n")
    assert found(check(folder)) == [("warning", "missing classes")] * 2
    pictures.write(tmp_path / "labels.txt", b"1:class 1\n2:Class two\n")
    finding = the_finding(check(folder))
    assert (finding.level, finding.kind) == ("error", "contradicting names")
    assert "'class 2' here and 'Class two' in labels.txt" in finding.message


def test_a_class_for_evaluation_alone_is_an_error(tmp_path):
    finding = the_finding(check(data_set(tmp_path, validation=[payload(150, 3)])))
    assert (finding.level, finding.kind) == ("error", "missing classes")
    assert "train has no record of 1 of 3 classes (labels 3)" in finding.message


def test_a_class_for_training_alone_is_a_warning(tmp_path):
    finding = the_finding(check(data_set(tmp_path, train=[payload(150, 3)])))
    assert (finding.level, finding.kind) == ("warning", "missing classes")


def test_one_name_for_two_labels_is_a_warning(tmp_path):
    more = [payload(60 + number, 3, image__class__text="class 1") for number in range(2)]
    report = check(data_set(tmp_path, more[:1], more[1:]))
    assert found(report) == [("warning", "one name for two labels")]


# Shards, rotation, copies


def test_a_missing_shard_is_found_and_the_other_split_is_read(tmp_path):
    folder = data_set(tmp_path)
    os.remove(os.path.join(folder, "train-00000-of-00002"))
    report = check(folder)
    assert ("error", "missing shards") in found(report)
    assert report.tally.splits["validation"].records == [4]


def test_an_empty_shard_and_uneven_ones_are_found(tmp_path):
    folder = data_set(tmp_path, [payload(50, 1)], shards=4)
    pictures.write(os.path.join(folder, "train-00002-of-00004"), b"")
    path = os.path.join(folder, "train-00003-of-00004")
    pictures.write(path, tfrecord.frame(payload(3, 2)))
    assert found(check(folder)) == [("error", "empty shard"), ("warning", "uneven shards")]


def test_no_data_set_at_all_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="holds no shard train"):
        check(tmp_path)


def test_rotation_in_exif_is_a_warning(tmp_path):
    block = Image.Exif()
    block[0x0112] = 6
    turned = fake.encode(pictures.picture(70), exif=block.tobytes())
    finding = the_finding(check(data_set(tmp_path, [payload(0, 1, encoded=turned)])))
    assert (finding.level, finding.kind, finding.place.record) == ("warning", "rotation in EXIF", 4)


def test_the_same_picture_in_both_splits_is_found(tmp_path):
    finding = the_finding(check(data_set(tmp_path, validation=[payload(2, 1)])))
    assert (finding.level, finding.kind) == ("error", "in both splits")
    assert "train-00000-of-00002, record 1" in finding.message
    assert finding.place[0::2][:2] == ("validation", 4)


def test_the_same_picture_under_two_labels_is_found(tmp_path):
    finding = the_finding(check(data_set(tmp_path, [payload(2, 2)])))
    assert (finding.level, finding.kind) == ("error", "two labels")
    assert "has label 1 here and 2 in train-00000-of-00002, record 4" in finding.message


def test_copies_in_one_split_are_a_warning(tmp_path):
    finding = the_finding(check(data_set(tmp_path, [payload(2, 1), payload(2, 1)])))
    assert (finding.level, finding.kind) == ("warning", "copies")


def test_many_findings_of_a_kind_are_counted_and_not_all_kept(tmp_path, monkeypatch):
    from densenet_keras.data.check import findings

    monkeypatch.setattr(findings, "KEPT_OF_A_KIND", 3)
    folder = data_set(tmp_path, [payload(50 + n, 1, image__height=1) for n in range(9)])
    report = check(folder)
    assert len(report.findings.kept) == 3
    assert report.findings.number("warning") == 9


def test_threads_do_not_change_the_report(tmp_path):
    random = np.random.RandomState(0)
    labels = random.randint(-1, 5, 60)
    folder = data_set(tmp_path, [payload(n % 30, int(label)) for n, label in enumerate(labels)], shards=3)
    reports = [job.check(CheckOptions(data_dir=folder, data_threads=threads)).to_json() for threads in (1, 4)]
    assert reports[0] == reports[1]
    assert reports[0]["errors"] > 5
