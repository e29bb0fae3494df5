"""The cached index is believed only where it fits the shards, and is built by one process for all."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from densenet_keras.data import index_file, record_index, records
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.data.shards import find_shards
from tests.support import records as fake
from tests.support.paths import ROOT

TRAIN = 11


@pytest.fixture
def data_dir(tmp_path):
    return fake.write_noise(tmp_path / "data", train=TRAIN, validation=3, size=(6, 5))


@pytest.fixture
def builds(monkeypatch):
    """Counts how often an index is built."""
    calls = []
    build = record_index.build
    monkeypatch.setattr(record_index, "build", lambda *args: calls.append(args) or build(*args))
    return calls


def cache_file(data_dir):
    return os.path.join(data_dir, record_index.FOLDER, "train.npz")


def relabelled(data_dir):
    """Writes the same pictures under other labels; sizes and times of the shards stay."""
    paths = find_shards(data_dir, "train")
    times = [os.stat(path) for path in paths]
    payloads = fake.noise_payloads(TRAIN, size=(6, 5), seed=1, label_offset=2)
    fake.write_split(data_dir, "train", payloads, shards=2)
    for path, status in zip(paths, times):
        assert os.path.getsize(path) == status.st_size
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_other_contents_of_the_same_size_and_time_are_noticed(data_dir, builds, capsys):
    old = records.open_split(data_dir, "train")
    relabelled(data_dir)
    new = records.open_split(data_dir, "train")
    assert len(builds) == 2
    assert (new.label == old.label + 1).all()
    assert capsys.readouterr().err.count("is not that of the shards any more") == 1
    records.open_split(data_dir, "train")
    assert len(builds) == 2


def test_one_record_written_anew_is_noticed_when_it_is_read(data_dir, monkeypatch):
    """A sample may miss it; its label would be the old one."""
    split = records.open_split(data_dir, "train")
    relabelled(data_dir)
    monkeypatch.setattr(index_file, "fits", lambda *args: True)
    split = records.open_split(data_dir, "train")
    with pytest.raises(records.BadRecord, match="another record stands there") as caught:
        RecordReader(split).images(np.array([3]))
    assert not caught.value.is_damage


def test_the_sample_reaches_every_shard():
    shard = np.repeat(np.arange(3000, dtype=np.int32), 7)
    columns = {"shard": shard, "image_bytes": np.ones(len(shard), np.uint32)}
    rows = index_file._sampled(record_index.Index(columns, {}))
    assert set(shard[rows]) == set(range(3000))
    assert len(rows) < 8000


def planted(path, change):
    """Writes the index anew with some members changed."""
    with np.load(path) as stored:
        columns = {name: stored[name].copy() for name in stored.files}
    change(columns)
    return columns


def of_shards_that_end_earlier(columns):
    columns["offset"][-1] += 10_000


def of_a_shard_that_is_not_there(columns):
    columns["shard"][-1] = 2


def with_an_image_behind_its_record(columns):
    columns["image_bytes"][3] += 10_000


def with_records_out_of_order(columns):
    columns["offset"][:2] = columns["offset"][1::-1]


def without_rows(columns):
    for name in record_index.COLUMNS:
        columns[name] = columns[name][:0]


def with_floats(columns):
    columns["label"] = columns["label"].astype(np.float32)


def with_bad_records_of_another_form(columns):
    columns["bad"] = np.frombuffer(b"[" * 5000, np.uint8)


@pytest.mark.parametrize("change", [
    of_shards_that_end_earlier, of_a_shard_that_is_not_there, with_an_image_behind_its_record,
    with_records_out_of_order, without_rows, with_floats, with_bad_records_of_another_form,
])  # fmt: skip
def test_a_planted_index_is_not_believed(data_dir, builds, change):
    whole = records.open_split(data_dir, "train")
    np.savez(cache_file(data_dir), **planted(cache_file(data_dir), change))
    again = records.open_split(data_dir, "train")
    assert len(builds) == 2
    np.testing.assert_array_equal(again.offset, whole.offset)


def test_an_index_that_unpacks_to_gigabytes_is_not_unpacked(data_dir, builds, monkeypatch):
    records.open_split(data_dir, "train")
    path = cache_file(data_dir)
    columns = planted(path, lambda columns: None)
    np.savez_compressed(path, **{**columns, "offset": np.zeros(1_000_000, np.uint64)})
    read = zipfile.ZipExtFile.read
    sizes = []
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *args: sizes.append(len(read(*args))) or b"")
    records.open_split(data_dir, "train")
    assert len(builds) == 2
    assert sum(sizes) < 10_000


def test_an_index_larger_than_its_shards_is_not_read(data_dir, builds):
    records.open_split(data_dir, "train")
    os.truncate(cache_file(data_dir), 1 << 30)  # takes no room
    records.open_split(data_dir, "train")
    assert len(builds) == 2


def test_a_record_that_was_bad_and_is_mended_is_read_again(data_dir, builds):
    path = find_shards(data_dir, "train")[0]
    with open(path, "rb") as file:
        whole = file.read()
    status = os.stat(path)

    def write(data):
        with open(path, "wb") as file:
            file.write(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    write(whole[:40] + bytes(1) + whole[41:])
    permitting = records.Policy(0.5)
    assert list(records.open_split(data_dir, "train", policy=permitting).bad) == [0]
    assert list(records.open_split(data_dir, "train", policy=permitting).bad) == [0]
    assert len(builds) == 1
    write(whole)
    assert not records.open_split(data_dir, "train").bad


def test_several_processes_build_once(data_dir):
    """Those that come while one builds wait for it and take what it has built."""
    code = f"""if True:
        import sys
        from densenet_keras.data import record_index, records
        build = record_index.build
        record_index.build = lambda *args: print("built") or build(*args)
        sys.stdin.readline()
        print(len(records.open_split({data_dir!r}, "train")))
    """
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)
    ]
    for process in running:
        process.stdin.write(b"\n")
        process.stdin.flush()
    said = b"".join(process.communicate()[0] for process in running).split()
    assert sorted(said) == [b"11"] * 4 + [b"built"]
    assert sorted(os.listdir(os.path.dirname(cache_file(data_dir)))) == [".train.npz.lock", "train.npz"]


def test_where_the_data_cannot_be_written_the_run_folder_carries_it_to_other_hosts(
    data_dir, tmp_path, builds
):
    open(os.path.join(data_dir, record_index.FOLDER), "w").close()  # a folder cannot be made there
    policy = records.Policy(folder=str(tmp_path / "run"))
    for host in range(2):  # each has a home of its own
        environ = {"XDG_CACHE_HOME": str(tmp_path / f"home{host}")}
        records.open_split(data_dir, "train", environ=environ, policy=policy)
    assert len(builds) == 1


def test_an_index_that_cannot_be_kept_is_said(data_dir, capsys):
    open(os.path.join(data_dir, record_index.FOLDER), "w").close()
    records.open_split(data_dir, "train", environ={"XDG_CACHE_HOME": "/proc/nowhere"})
    assert "every process reads all shards again" in capsys.readouterr().err
