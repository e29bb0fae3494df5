"""The whole way: what is written, that it is always the same, and what an end in the middle leaves."""

import contextlib
import csv
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from densenet_keras import files
from densenet_keras.data import classes, record_index, records, tfrecord
from densenet_keras.data.prepare import job, shards, workspace
from densenet_keras.data.prepare.options import PrepareOptions
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import RunError, UsageError
from tests.support import pictures
from tests.support import records as fake


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three classes of 30, with a few odd files."""
    folder = pictures.class_folders(tmp_path_factory.mktemp("source"), count=30)
    pictures.write(os.path.join(folder, "cat", "wrong_ending.jpg"), fake.encode(pictures.picture(77), "png"))
    pictures.write(os.path.join(folder, "cat", "moving.gif"), fake.encode(pictures.picture(78), "gif"))
    pictures.write(os.path.join(folder, "dog", "cut.jpg"), pictures.jpeg(79)[:-30])
    pictures.write(os.path.join(folder, "dog", "Thumbs.db"), b"junk")
    return folder


def prepare(source, data_dir, **settings):
    """(outcome, what was said)."""
    settings = {"max_left_out_share": 0.05, "train_shards": 4, "data_threads": 2, **settings}
    said = []
    options = PrepareOptions(pictures=str(source), data_dir=str(data_dir), **settings)
    return job.prepare(options, said.append), said


def contents(data_dir):
    """Digest of every file but the index, whose content holds times."""
    found = {}
    for name in sorted(os.listdir(str(data_dir))):
        if name != record_index.FOLDER:
            with open(os.path.join(str(data_dir), name), "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def examples(data_dir, name):
    """Every Example of a split, by file name."""
    split = records.open_split(str(data_dir), name)
    found = [tfrecord.read_example(fake.payload(split, number)) for number in range(len(split))]
    return {example["image/filename"][0].decode(): example for example in found}


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    outcome, said = prepare(source, folder)
    return folder, outcome, said


# What is written


def test_every_usable_picture_is_in_one_split(prepared):
    folder, outcome, _ = prepared
    train, validation = examples(folder, "train"), examples(folder, "validation")
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 92
    assert outcome.pictures == {"train": len(train), "validation": len(validation)}
    assert outcome.changes == {"turned": 0, "converted": 1, "shrunk": 0}
    assert {"cat", "dog", "owl"} == {path.split("/")[0] for path in validation}


def test_a_record_has_the_keys_of_tf_slim(prepared):
    folder, _, _ = prepared
    both = {**examples(folder, "train"), **examples(folder, "validation")}
    assert both["dog/003.jpg"] == {
        "image/encoded": [pictures.jpeg(1003)],
        "image/format": [b"JPEG"],
        "image/height": [12],
        "image/width": [10],
        "image/colorspace": [b"RGB"],
        "image/channels": [3],
        "image/class/label": [2],
        "image/class/text": [b"dog"],
        "image/filename": [b"dog/003.jpg"],
    }
    assert both["cat/wrong_ending.jpg"]["image/format"] == [b"PNG"]
    assert both["cat/moving.gif"]["image/encoded"][0].startswith(b"\x89PNG")


def test_the_pictures_are_shuffled_over_the_shards(prepared):
    folder, _, _ = prepared
    split = records.open_split(str(folder), "train")
    assert len(split.paths) == 4
    for shard in range(4):
        labels = split.label[split.shard == shard]
        assert set(labels) == {1, 2, 3}
        assert abs(len(labels) - len(split) / 4) <= 2
        assert (np.diff(labels) < 0).any()


def test_the_index_is_there_and_is_what_a_scan_would_build(prepared, monkeypatch):
    folder, _, _ = prepared
    for name in ("train", "validation"):
        built = record_index.build(find_shards(str(folder), name))
        monkeypatch.setattr(record_index, "build", lambda *args: pytest.fail("scanned"))
        split = records.open_split(str(folder), name)
        monkeypatch.undo()
        for column, values in built.columns.items():
            np.testing.assert_array_equal(getattr(split, column), values)


def test_what_was_left_out_is_listed_with_its_reason(prepared):
    folder, outcome, _ = prepared
    with open(str(folder / "left_out.csv")) as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["class"]) == ("dog/cut.jpg", "dog")
    assert "cut off" in row["reason"]
    assert outcome.left_out == 1


def test_the_data_set_describes_itself(prepared, source):
    folder, _, _ = prepared
    with open(str(folder / "dataset.json")) as file:
        described = json.load(file)
    assert [entry["name"] for entry in described["classes"]] == ["cat", "dog", "owl"]
    assert [entry["train"] + entry["validation"] for entry in described["classes"]] == [32, 30, 30]
    for shard in described["shards"]:
        data = (folder / shard["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
    assert sum(shard["pictures"] for shard in described["shards"]) == 92
    assert described["settings"]["train_shards"] == 4
    assert described["left_out"] == 1
    assert "upright" in described["exif_rotation"]
    assert classes.find(str(folder), 1).names == ("cat", "dog", "owl")


def test_what_was_found_is_said_before_the_work(prepared):
    text = "\n".join(prepared[2])
    for words in ("3 classes (cat, dog, owl), 93 pictures", "train: ", "in 4 files", "free in"):
        assert words in text


def test_nothing_else_lies_in_the_folder(prepared):
    assert sorted(contents(prepared[0])) == [
        "dataset.json", "duplicates.csv", "labels.txt", "left_out.csv",
        *(f"train-{number:05d}-of-00004" for number in range(4)), "validation-00000-of-00001",
    ]  # fmt: skip


def test_imagenet_becomes_what_tf_slim_makes_of_it(tmp_path):
    synsets = pictures.imagenet(tmp_path / "tars")
    labels = tmp_path / "tars" / "imagenet_2012_validation_synset_labels.txt"
    pictures.write(labels, "\n".join(synsets).encode())
    names = pictures.write(tmp_path / "names", b"n00000001 tench\nn00000002 shark\nn00000003 ray, manta\n")
    prepare(tmp_path / "tars", tmp_path / "data", class_names=names)
    train, validation = examples(tmp_path / "data", "train"), examples(tmp_path / "data", "validation")
    assert len(train) == 18
    example = train["n00000003_4.JPEG"]
    assert example["image/class/label"] == [3]
    assert example["image/class/synset"] == [b"n00000003"]
    assert example["image/class/text"] == [b"ray, manta"]
    assert example["image/encoded"] == [pictures.jpeg(304)]
    found = [validation[name]["image/class/synset"][0].decode() for name in sorted(validation)]
    assert found == synsets
    assert (tmp_path / "data" / "labels.txt").read_text() == "1:tench\n2:shark\n3:ray, manta\n"


@pytest.mark.parametrize("reader", ["tf_slim", "nvidia"])
def test_the_feature_specs_of_others_read_the_records(prepared, reader):
    """As in TF-Slim's datasets/imagenet.py and in the DALI and tf.data readers of NVIDIA's examples."""
    import tensorflow as tf

    boxes = {f"image/object/bbox/{side}": tf.io.VarLenFeature(tf.float32) for side in ("xmin", "ymax")}
    label_shape = [] if reader == "tf_slim" else [1]
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string, ""),
        "image/format": tf.io.FixedLenFeature([], tf.string, "jpeg"),
        "image/class/label": tf.io.FixedLenFeature(label_shape, tf.int64, -1),
        "image/class/text": tf.io.FixedLenFeature([], tf.string, ""),
        **boxes,
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        paths = find_shards(str(prepared[0]), "train")
        batch = tf.data.TFRecordDataset(paths).batch(1000)
        parsed = tf.io.parse_example(tf.compat.v1.data.make_one_shot_iterator(batch).get_next(), spec)
        image = tf.image.decode_jpeg(parsed["image/encoded"][0], channels=3)
        labels, texts, pixels = session.run([parsed["image/class/label"], parsed["image/class/text"], image])
    names = {1: b"cat", 2: b"dog", 3: b"owl"}
    assert [names[label] for label in labels.ravel()] == list(texts)
    assert pixels.shape == (12, 10, 3)


# Always the same


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_do_not_change_the_bytes(source, prepared, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(shards, "_CHUNK_PICTURES", 1 + threads)
    prepare(source, tmp_path / "data", data_threads=threads)
    assert contents(tmp_path / "data") == contents(prepared[0])


def test_another_seed_writes_another_order(source, prepared, tmp_path):
    prepare(source, tmp_path / "data", seed=1)
    first = "train-00000-of-00004"
    assert contents(tmp_path / "data")[first] != contents(prepared[0])[first]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("at", range(0, 21, 2))
def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(source, prepared, tmp_path, monkeypatch, at):
    """Ends before the disk operation number `at`: a shard, an account or a file taking its name."""
    replace, done = os.replace, []

    def counting(*args):
        done.append(args)
        if len(done) == at + 1:
            raise Killed
        replace(*args)

    monkeypatch.setattr(os, "replace", counting)
    with contextlib.suppress(Killed):
        prepare(source, tmp_path / "data")
    assert len(done) > at, "there are fewer operations"
    monkeypatch.undo()
    prepare(source, tmp_path / "data")
    assert contents(tmp_path / "data") == contents(prepared[0])
    assert {"train.npz", "validation.npz"} <= set(os.listdir(str(tmp_path / "data" / record_index.FOLDER)))


def test_whole_shards_are_not_written_again(source, tmp_path, monkeypatch):
    written, whole_file = [], files.whole_file

    def recording(path, mode="w"):
        if path.endswith("train-00003-of-00005") and "killed" not in written:
            written.append("killed")
            raise Killed
        written.append(os.path.basename(path))
        return whole_file(path, mode)

    monkeypatch.setattr(files, "whole_file", recording)
    with pytest.raises(Killed):
        prepare(source, tmp_path / "data", train_shards=5)
    _, said = prepare(source, tmp_path / "data", train_shards=5)
    again = written[written.index("killed") + 1 :]
    assert [name for name in again if name.endswith(("-of-00005", "-of-00001"))] == [
        "train-00003-of-00005", "train-00004-of-00005", "validation-00000-of-00001"
    ]  # fmt: skip
    assert any("3 of 6 shards are there already" in line for line in said)


def test_unfinished_work_of_other_settings_is_started_afresh(source, prepared, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(workspace.Workspace, "publish", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            prepare(source, tmp_path / "data", seed=5, train_shards=3)
    prepare(source, tmp_path / "data")
    assert contents(tmp_path / "data") == contents(prepared[0])


def test_unfinished_publication_of_other_settings_leaves_nothing(source, prepared, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(record_index, "store", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            prepare(source, tmp_path / "data", seed=5, train_shards=3)
    assert (tmp_path / "data" / "train-00000-of-00003").exists()
    prepare(source, tmp_path / "data")
    assert contents(tmp_path / "data") == contents(prepared[0])


def test_a_finished_data_set_is_left_alone(source, prepared):
    before = contents(prepared[0])
    outcome, said = prepare(source, prepared[0])
    assert outcome is None
    assert "nothing to do" in said[-1]
    with pytest.raises(UsageError, match="other pictures or settings"):
        prepare(source, prepared[0], seed=3)
    assert contents(prepared[0]) == before


# What cannot be


def names_in(folder):
    return sorted(os.listdir(str(folder)))


def test_too_many_left_out_publish_nothing_and_lose_nothing(source, tmp_path):
    with pytest.raises(RunError, match=r"1 of 93 pictures \(1\.1%\) cannot be used.*dog/cut\.jpg"):
        prepare(source, tmp_path / "data", max_left_out_share=0.01)
    assert names_in(tmp_path / "data") == [workspace.FOLDER, "left_out.csv"]
    _, said = prepare(source, tmp_path / "data", max_left_out_share=0.02)
    assert any("5 of 5 shards are there already" in line for line in said)


def test_a_full_disk_is_said_and_what_is_whole_is_kept(source, prepared, tmp_path, monkeypatch):
    """/dev/full answers every write as a full disk does."""
    whole_file = files.whole_file

    def to_a_full_disk(path, mode="w"):
        if path.endswith("train-00002-of-00004"):
            return open("/dev/full", mode)
        return whole_file(path, mode)

    monkeypatch.setattr(files, "whole_file", to_a_full_disk)
    with pytest.raises(RunError, match="No space left on device.*make room.*behind the last whole shard"):
        prepare(source, tmp_path / "data")
    monkeypatch.undo()
    assert names_in(tmp_path / "data") == [workspace.FOLDER]
    _, said = prepare(source, tmp_path / "data")
    assert any("2 of 5 shards are there already" in line for line in said)
    assert contents(tmp_path / "data") == contents(prepared[0])


def test_too_little_room_is_said_before_the_work(source, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=r"has 5\.0 kB free, but about .* kB are needed"):
        prepare(source, tmp_path / "data")


def test_two_at_once_in_one_folder_are_refused(source, tmp_path, monkeypatch):
    def meanwhile(*args):
        with pytest.raises(UsageError, match="another prepare is writing there"):
            prepare(source, tmp_path / "data")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_missing", meanwhile)
        patch.setattr(job, "publish", lambda *args: None)
        prepare(source, tmp_path / "data")


@pytest.mark.parametrize(("place", "words"), [
    ("in the pictures", "would be taken for a class"), ("a file", "is not a folder"),
    ("other data", "holds other data"),
])  # fmt: skip
def test_a_folder_that_is_taken_is_refused(source, tmp_path, place, words):
    data_dir = os.path.join(source, "data") if place == "in the pictures" else str(tmp_path / "data")
    if place == "a file":
        pictures.write(data_dir, b"x")
    if place == "other data":
        fake.write_noise(data_dir, train=2, validation=2)
    with pytest.raises(UsageError, match=words):
        prepare(source, data_dir)


def test_more_shards_than_pictures_are_refused(source, tmp_path):
    with pytest.raises(UsageError, match="--train_shards 200: there are only"):
        prepare(source, tmp_path / "data", train_shards=200)


def test_a_shard_without_pictures_is_refused(tmp_path):
    pictures.class_folders(tmp_path / "p", ("a", "b"), count=2)
    pictures.write(tmp_path / "p" / "a" / "000.jpg", b"junk")
    shards = {"train_shards": 2, "validation_shards": 2}
    with pytest.raises(RunError, match="has no picture.*_shards 1"):
        prepare(tmp_path / "p", tmp_path / "data", max_left_out_share=1.0, **shards)


def test_pictures_that_are_there_twice_are_named(tmp_path):
    pictures.class_folders(tmp_path / "p" / "train", ("a", "b"), count=3)
    pictures.class_folders(tmp_path / "p" / "val", ("a", "b"), count=3, first=500)
    pictures.write(tmp_path / "p" / "val" / "a" / "same.jpg", pictures.jpeg(1))  # train/a/001.jpg
    pictures.write(tmp_path / "p" / "train" / "b" / "twin.jpg", pictures.jpeg(2))  # train/a/002.jpg
    pictures.write(tmp_path / "p" / "train" / "a" / "copy.jpg", pictures.jpeg(0))  # harmless
    outcome, _ = prepare(tmp_path / "p", tmp_path / "data", train_shards=2)
    assert outcome.duplicates == {"in_both_splits": 1, "under_two_labels": 1}
    assert outcome.examples == [
        [["train/a/001.jpg", "val/a/same.jpg"]], [["train/a/002.jpg", "train/b/twin.jpg"]]
    ]  # fmt: skip
    with open(str(tmp_path / "data" / "duplicates.csv")) as file:
        listed = [(row["group"], row["path"], row["split"], row["class"]) for row in csv.DictReader(file)]
    assert listed == [
        ("1", "train/a/001.jpg", "train", "a"), ("1", "val/a/same.jpg", "validation", "a"),
        ("2", "train/a/002.jpg", "train", "a"), ("2", "train/b/twin.jpg", "train", "b"),
    ]  # fmt: skip


def test_without_a_number_shards_are_of_128_megabytes(source, monkeypatch, tmp_path):
    from densenet_keras.data.prepare import plan

    monkeypatch.setattr(plan, "SHARD_BYTES", 10_000)
    prepare(source, tmp_path / "data", train_shards=None)
    sizes = [os.path.getsize(path) for path in find_shards(str(tmp_path / "data"), "train")]
    assert len(sizes) > 3
    assert all(5_000 < size < 15_000 for size in sizes)


def test_the_size_of_shrunk_pictures_is_learned_from_a_sample(tmp_path, monkeypatch):
    for name in ("a", "b"):
        for number in range(6):
            pictures.write(tmp_path / "p" / name / f"{number}.jpg", pictures.jpeg(number, (160, 200)))
    _, said = prepare(tmp_path / "p", tmp_path / "whole", train_shards=1)
    _, shrunk = prepare(tmp_path / "p", tmp_path / "small", train_shards=1, short_side=32)
    lines = [next(line for line in lines if line.startswith("room")) for lines in (said, shrunk)]
    room = [float(line.split()[2]) for line in lines]
    written = sum(os.path.getsize(path) for path in find_shards(str(tmp_path / "small"), "train"))
    assert room[1] < room[0] / 4
    assert room[1] * 1000 == pytest.approx(written * 12 / 10, rel=0.3)
