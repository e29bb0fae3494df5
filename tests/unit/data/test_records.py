"""The index finds every record, every damage is named, and the cache never goes stale."""

import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from densenet_keras.data import index_scan, record_index, records, tfrecord
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import UsageError
from tests.support import records as fake
from tests.support.paths import ROOT

JPEG = fake.encode(np.zeros((4, 4, 3), np.uint8))


@pytest.fixture
def data_dir(tmp_path):
    return fake.write_noise(tmp_path / "data", train=11, validation=3, size=(6, 5))


@pytest.fixture
def builds(monkeypatch):
    """Counts how often an index is built."""
    calls = []
    build = record_index.build
    monkeypatch.setattr(record_index, "build", lambda *args: calls.append(args) or build(*args))
    return calls


def message(data_dir, name="train"):
    with pytest.raises(UsageError) as caught:
        records.open_split(str(data_dir), name)
    return str(caught.value)


def shard(data_dir, number=0, of=2):
    return os.path.join(data_dir, f"train-{number:05d}-of-{of:05d}")


def flip_byte(path, position):
    """Changes one byte, leaving size and modification time as they were."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(position)
        value = file.read(1)[0]
        file.seek(position)
        file.write(bytes([value ^ 0xFF]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# What the index holds


def test_every_record_is_found_with_its_label_and_image(data_dir):
    split = records.open_split(data_dir, "train")
    payloads = fake.noise_payloads(11, size=(6, 5), seed=1)
    expected = payloads[0::2] + payloads[1::2]
    assert len(split) == 11
    assert [fake.payload(split, number) for number in range(11)] == expected
    assert split.label.tolist() == [1, 3, 5, 7, 9, 1, 2, 4, 6, 8, 10]
    for number in range(11):
        image = fake.payload(split, number)[split.image_start[number] :][: split.image_bytes[number]]
        assert image.startswith(b"\xff\xd8")
        assert image.endswith(b"\xff\xd9")


@pytest.mark.parametrize("file", ["train-00000-of-00001", "photos.zip"])
def test_data_without_validation_shards_are_told_the_mode_that_needs_none(file, tmp_path):
    (tmp_path / file).write_bytes(b"anything")
    with pytest.raises(UsageError, match="holds no shard validation") as refused:
        find_shards(str(tmp_path), "validation")
    assert ("--mode train, needs none" in str(refused.value)) == file.startswith("train")


def test_index_agrees_with_tensorflow(data_dir):
    import tensorflow as tf

    split = records.open_split(data_dir, "train")
    read = [record for path in split.paths for record in tf.compat.v1.io.tf_record_iterator(path)]
    assert read == [fake.payload(split, number) for number in range(len(split))]
    for number, record in enumerate(read):
        feature = tf.train.Example.FromString(record).features.feature
        assert feature["image/class/label"].int64_list.value[0] == split.label[number]


def test_examples_written_by_tensorflow_are_parsed():
    import tensorflow as tf

    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[JPEG])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[-7])),
        "image/object/bbox/xmin": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, 1.0])),
    }
    payload = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    found = tfrecord.parse_example(payload)
    assert found.label == -7
    assert payload[found.image_start : found.image_start + found.image_bytes] == JPEG


def delimited(number, content):
    """A field of a protocol buffer."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def entry(name, feature):
    return delimited(1, delimited(1, name) + delimited(2, feature))


IMAGE = delimited(1, delimited(1, b"\xff\xd8\xff"))
LABEL = delimited(3, delimited(1, b"\x2a"))


def assert_parsed(*entries):
    payload = delimited(1, b"".join(entries))
    found = tfrecord.parse_example(payload)
    assert found.label == 42
    assert payload[found.image_start :][: found.image_bytes] == b"\xff\xd8\xff"


def test_unpacked_integers_are_parsed():
    assert_parsed(entry(b"image/encoded", IMAGE), entry(b"image/class/label", delimited(3, b"\x08\x2a")))


@pytest.mark.parametrize(
    "layout",
    [
        lambda key, value: value + key,
        lambda key, value: delimited(1, b"other") + key + value,
        lambda key, value: key + delimited(2, b"") + value,
        lambda key, value: key + value + b"\x18\x05",  # a field that nobody knows
    ],
)
@pytest.mark.parametrize(
    "other",
    [b"", delimited(1, b"k" * 200), entry(b"k" * 200, IMAGE), delimited(2, IMAGE)],
    ids=["nothing", "a key alone", "a long key", "a value alone"],
)
def test_entries_are_parsed_however_they_are_laid_out(layout, other):
    """As the format allows, whether or not a writer does it: of a field that comes twice the last counts."""
    pairs = [(b"image/encoded", IMAGE), (b"image/class/label", LABEL)]
    entries = [delimited(1, layout(delimited(1, name), delimited(2, feature))) for name, feature in pairs]
    assert_parsed(*entries, delimited(1, other))


def test_who_waits_for_storage_holds_up_no_other_shard(tmp_path):
    slow = str(tmp_path / "slow")
    os.mkfifo(slow)
    turn, taken = threading.Lock(), []
    writer = os.open(slow, os.O_RDWR)  # so that opening for reading does not wait
    with turn, index_scan.Waiting(slow, turn) as file:

        def other():
            with turn:
                taken.append(True)
                os.write(writer, b"come")

        threading.Thread(target=other, daemon=True).start()
        read = bytearray(4)
        file.readinto(read)
        assert read == b"come"
        assert turn.locked()
    assert taken
    os.close(writer)


def test_indexing_needs_no_tensorflow(data_dir):
    code = (
        "import sys; from densenet_keras.data import record_reader, records; "
        f"record_reader.RecordReader(records.open_split({data_dir!r}, 'train')).images([0]); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.call([sys.executable, "-c", code], cwd=ROOT) == 0


def test_progress_ends_at_the_total(data_dir):
    seen = []
    records.open_split(data_dir, "train", progress=lambda done, total: seen.append((done, total)))
    size = sum(os.path.getsize(shard(data_dir, number)) for number in range(2))
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


# Which files are shards


def test_only_shards_are_taken(data_dir):
    for name in ("train-00000-of-00002.idx", "train-00001-of-00002.tmp", "train-notes", "trains-00000"):
        (open(os.path.join(data_dir, name), "w")).close()
    assert len(find_shards(data_dir, "train")) == 2


def test_some_of_the_shards_are_used_and_the_others_need_not_be_there(tmp_path):
    payloads = fake.noise_payloads(10, size=(6, 5))
    data_dir = tmp_path / "data"
    fake.write_split(data_dir, "train", payloads, 5)
    whole = records.open_split(str(data_dir), "train")
    os.unlink(shard(data_dir, 1, of=5))
    part = records.open_split(str(data_dir), "train", shards="0,2-3")
    names = [os.path.basename(path) for path in part.paths]
    assert names == [f"train-0000{number}-of-00005" for number in (0, 2, 3)]
    assert part.label.tolist() == [whole.label[row] for row in range(10) if whole.shard[row] in (0, 2, 3)]
    with pytest.raises(UsageError, match="1 of 2 train shards missing, the first is train-00001-of-00005"):
        records.open_split(str(data_dir), "train", shards="0-1")


@pytest.mark.parametrize("wanted", ["2", "0-2", "1-0", "0,7"])
def test_numbers_of_shards_that_are_not_there_are_refused_with_those_that_are(data_dir, wanted):
    with pytest.raises(UsageError, match=f"--shards {wanted}: .* is not a part of 0-1"):
        find_shards(data_dir, "train", wanted)


def test_the_index_of_the_whole_split_outlives_that_of_a_part(data_dir, builds):
    for wanted in ("", "1", "", "1"):
        records.open_split(data_dir, "train", shards=wanted)
    assert len(builds) == 2


def test_unnumbered_shards_are_taken(tmp_path):
    fake.write_shard(tmp_path / "train-a.tfrecord", fake.noise_payloads(2))
    fake.write_shard(tmp_path / "train-b.tfrecord", fake.noise_payloads(3))
    assert len(records.open_split(str(tmp_path), "train")) == 5


def test_missing_shard_is_named(data_dir):
    os.unlink(shard(data_dir, 1))
    text = message(data_dir)
    assert "train-00001-of-00002" in text
    assert "1 of 2" in text


def test_shards_of_two_sets_are_refused(data_dir):
    fake.write_shard(shard(data_dir, 0, of=1), fake.noise_payloads(1))
    assert "mixes train shards of sets of 1 and 2 files" in message(data_dir)


def test_doubled_shard_is_refused(data_dir):
    fake.write_shard(shard(data_dir) + ".tfrecord", fake.noise_payloads(1))
    assert "holds 3 train shards" in message(data_dir)


def test_missing_folder(tmp_path):
    text = message(tmp_path / "nowhere")
    assert "--data_dir" in text
    assert "nowhere" in text


def test_folder_without_shards_lists_what_is_there(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    text = message(tmp_path)
    assert "no shard train-*" in text
    assert "readme.txt" in text


# Damage


@pytest.mark.parametrize("position", [0, 8, 12, 40, -1])
def test_any_changed_byte_of_a_record_is_named(data_dir, position):
    path = shard(data_dir)
    split = records.open_split(data_dir, "train")
    record_start = int(split.offset[2]) - tfrecord.HEADER_BYTES
    record_end = int(split.offset[3]) - tfrecord.HEADER_BYTES
    flip_byte(path, record_start + position if position >= 0 else record_end + position)
    os.utime(path)
    text = message(data_dir)
    assert path in text
    assert f"record 2 at byte {record_start}" in text
    assert "checksum" in text


@pytest.mark.parametrize("kept", [5, 12, 100, -1])
def test_cut_record_is_named(data_dir, kept):
    path = shard(data_dir)
    last = int(records.open_split(data_dir, "train").offset[5]) - tfrecord.HEADER_BYTES
    os.truncate(path, last + kept if kept > 0 else os.path.getsize(path) + kept)
    text = message(data_dir)
    assert path in text
    assert f"record 5 at byte {last}" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b" + bytes(100), "gzip"),
        (b"These are no records, whatever the name says.", "not a TFRecord file"),
    ],
)
def test_other_files_are_refused(data_dir, content, expected):
    with open(shard(data_dir), "wb") as file:
        file.write(content)
    text = message(data_dir)
    assert shard(data_dir) in text
    assert expected in text


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (tfrecord.encode_example({"image/encoded": JPEG}), "no image/class/label"),
        (tfrecord.encode_example({"image/class/label": 1}), "no image/encoded"),
        (fake.example(b"", 1), "it is empty"),
        (fake.example(JPEG, "three"), "one integer"),
        (fake.example(JPEG, 1 << 40), "32-bit"),
        (fake.example(b"RIFF....WEBP", 1), "neither JPEG nor PNG"),
        (b"\xff\xff\xff", "not a serialised tf.train.Example"),
        (fake.example(JPEG, 1)[:-20], "not a serialised tf.train.Example"),
    ],
)
def test_unusable_example_is_named(tmp_path, payload, expected):
    fake.write_split(tmp_path, "train", fake.noise_payloads(1) + [payload], shards=1)
    text = message(tmp_path)
    assert "train-00000-of-00001: record 1 at byte" in text
    assert expected in text


def test_damage_after_indexing_is_found_on_reading(data_dir):
    split = records.open_split(data_dir, "train")
    flip_byte(shard(data_dir, 1), int(split.offset[7]) + 30)
    split = records.open_split(data_dir, "train")  # size and time unchanged: the cache still fits
    with pytest.raises(records.BadRecord, match=r"train-00001-of-00002: record 1 at byte"):
        RecordReader(split).images([7])
    assert RecordReader(split).images([8])[0]


# The cache


def test_index_is_built_once(data_dir, builds):
    first = records.open_split(data_dir, "train")
    second = records.open_split(data_dir, "train")
    assert len(builds) == 1
    for column in record_index.COLUMNS:
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column))
    records.open_split(data_dir, "validation")
    assert len(builds) == 2


@pytest.mark.parametrize("change", ["time", "content", "more"])
def test_changed_shards_are_indexed_anew(data_dir, builds, change):
    records.open_split(data_dir, "train")
    if change == "time":
        os.utime(shard(data_dir), ns=(1, 1))
    elif change == "content":
        fake.write_shard(shard(data_dir), fake.noise_payloads(2))
    else:
        fake.write_split(data_dir, "train", fake.noise_payloads(9), shards=3)
        for number in range(2):
            os.unlink(shard(data_dir, number))
    split = records.open_split(data_dir, "train")
    assert len(builds) == 2
    assert len(split) == {"time": 11, "content": 7, "more": 9}[change]


def cache_file(data_dir):
    return os.path.join(data_dir, ".densenet_index", "train.npz")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "other shape", "other version"])
def test_damaged_cache_is_rebuilt(data_dir, builds, monkeypatch, damage):
    if damage == "other version":
        with monkeypatch.context() as older:
            older.setattr(record_index, "FORMAT_VERSION", 0)
            records.open_split(data_dir, "train")
    else:
        records.open_split(data_dir, "train")
    path = cache_file(data_dir)
    size = os.path.getsize(path)
    if damage == "cut":
        os.truncate(path, size // 2)
    elif damage == "flip":
        with np.load(path) as stored:
            value = stored["offset"].tobytes()
        with open(path, "rb") as file:
            flip_byte(path, file.read().index(value) + 9)
    elif damage == "other shape":
        with np.load(path) as stored:
            columns = {name: stored[name] for name in stored.files}
        np.savez(path, **{**columns, "label": columns["label"][:, np.newaxis]})
    elif damage == "empty":
        os.truncate(path, 0)
    elif damage == "text":
        with open(path, "w") as file:
            file.write("no archive")
    split = records.open_split(data_dir, "train")
    assert len(builds) == 2
    assert [len(fake.payload(split, number)) for number in range(11)] == split.length.tolist()
    records.open_split(data_dir, "train")
    assert len(builds) == 2


def test_read_only_folder_is_cached_for_the_user(data_dir, builds, tmp_path):
    open(os.path.join(data_dir, ".densenet_index"), "w").close()  # a folder cannot be made there
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    records.open_split(data_dir, "train", environ=environ)
    records.open_split(data_dir, "train", environ=environ)
    assert len(builds) == 1
    assert len(list((tmp_path / "cache" / "densenet_keras").glob("*-train.npz"))) == 1


def test_no_place_for_the_cache_is_no_failure(data_dir, builds):
    open(os.path.join(data_dir, ".densenet_index"), "w").close()
    environ = {"XDG_CACHE_HOME": "/proc/nowhere"}
    assert len(records.open_split(data_dir, "train", environ=environ)) == 11
    assert len(records.open_split(data_dir, "train", environ=environ)) == 11
    assert len(builds) == 2


# Labels


def test_labels_in_range_pass(data_dir):
    records.check_labels(records.open_split(data_dir, "train"), label_offset=1, num_classes=10)


@pytest.mark.parametrize(
    ("offset", "classes", "record", "label", "allowed", "remedy"),
    [
        (1, 9, "train-00001-of-00002: record 4 ", 10, "1 to 9", "--num_classes 10"),
        (0, 10, "train-00001-of-00002: record 4 ", 10, "0 to 9", "--label_offset 1 or --num_classes 11"),
        (2, 10, "train-00000-of-00002: record 0 ", 1, "2 to 11", "--label_offset 1"),
        (2, 5, "train-00000-of-00002: record 0 ", 1, "2 to 6", "--label_offset 1 --num_classes 10"),
    ],
)
def test_label_out_of_range(data_dir, offset, classes, record, label, allowed, remedy):
    split = records.open_split(data_dir, "train")
    with pytest.raises(UsageError) as caught:
        records.check_labels(split, label_offset=offset, num_classes=classes)
    text = str(caught.value)
    assert record in text
    assert f"label {label} is outside {allowed}" in text
    assert "run from 1 to 10" in text
    assert text.endswith("give " + remedy)


def test_length_of_the_framing_is_little_endian():
    assert struct.unpack("<Q", tfrecord.frame(b"abc")[:8]) == (3,)
