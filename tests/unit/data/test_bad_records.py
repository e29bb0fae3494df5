"""Bad records are passed over alike everywhere, listed once, and counted."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.data import batches as pipeline
from densenet_keras.data import records
from densenet_keras.data.bad_records import FILE, BadRecords, News
from densenet_keras.data.inputs import Inputs
from densenet_keras.data.order import Stream, TrainOrder, eval_batches_per_rank, substitute
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from tests.support import records as fake

COUNT = 20
BROKEN, UNDECODABLE, UNLABELLED = 4, 9, 13
NO_JPEG = b"\xff\xd8\xff\xe0 no more of a JPEG than its first bytes"


def write(folder, name="train"):
    """A split with a record of each kind that the index can tell, and one that only decoding can."""
    payloads = fake.noise_payloads(COUNT, size=(12, 12), classes=COUNT)
    payloads[UNDECODABLE] = fake.example(NO_JPEG, UNDECODABLE + 1)
    payloads[UNLABELLED] = fake.example(fake.encode(np.zeros((4, 4, 3), np.uint8)), 0.5)
    (path,) = fake.write_split(folder, name, payloads, shards=1)
    damage(path, sum(len(payload) + 16 for payload in payloads[:BROKEN]) + 30)


def damage(path, byte):
    """Changes a byte; size and time stay."""
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([value ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "data")
    return str(tmp_path / "data")


def policy(share=0.5, folder=""):
    return records.Policy(share, str(folder))


def config(**values):
    given = {"batch_size": 4, "image_size": 32, "num_classes": COUNT, "data_threads": 2, "seed": 3, **values}
    return Config().replace(model="densenet_tiny", **given)


def run(dataset, count):
    element = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()
    with tf.compat.v1.Session() as session:
        return [session.run(element) for _ in range(count)]


def trained(split, steps, rank=0, size=1, start=0, bad=None, **values):
    """Labels and pictures of steps of one rank."""
    with tf.Graph().as_default():
        bad = BadRecords(split, policy()) if bad is None else bad
        got = run(
            pipeline.train_dataset(
                split, config(**values), Topology(rank, size), tf.constant(start, tf.int64), bad=bad
            ),
            steps,
        )
    return np.concatenate([labels for _, labels in got]), np.concatenate([images for images, _ in got])


def expected(split, positions, seed=3):
    """The records that the rule puts at the first positions."""
    bad = {BROKEN, UNDECODABLE, UNLABELLED}
    batch = TrainOrder(seed, COUNT, positions, 0, 1).batch(0)
    found = []
    for record, draw in zip(batch.records, batch.draws):
        attempt, taken = 0, int(record)
        while taken in bad:
            attempt += 1
            taken = substitute(draw, attempt, COUNT)
        found.append(taken)
    return found


def test_a_bad_record_costs_its_own_place_alone_and_the_rule_fills_it(folder):
    split = records.open_split(folder, "train", policy=policy())
    assert sorted(split.bad) == [BROKEN, UNLABELLED]
    labels, _ = trained(split, 15)
    assert labels.tolist() == expected(split, 60)
    order = TrainOrder(3, COUNT, 60, 0, 1).batch(0).records
    assert sum(labels != order) == 9, "three bad records in three passes, and no other place"


def test_ranks_threads_and_a_late_start_see_the_same(folder):
    split = records.open_split(folder, "train", policy=policy())
    labels, images = trained(split, 10)
    parts = [trained(split, 10, rank, 2, batch_size=2, data_threads=1) for rank in range(2)]
    for whole, pieces in zip((labels, images), zip(*parts)):
        shared = np.stack([piece.reshape(10, 2, *piece.shape[1:]) for piece in pieces], 1)
        np.testing.assert_array_equal(shared.reshape(whole.shape), whole)
    late = trained(split, 4, start=6)
    np.testing.assert_array_equal(late[0], labels[24:])
    np.testing.assert_array_equal(late[1], images[24:])


def test_it_makes_no_difference_when_a_record_became_bad(folder):
    """Found by the index, or later by reading: the place is filled alike."""
    split = records.open_split(folder, "train", policy=policy())
    for byte in (3, 40, int(split.length[2]) + 14):  # length, data, checksum
        damage(split.paths[0], int(split.offset[2]) - 12 + byte)
        late, _ = trained(split, 15)
        os.remove(os.path.join(folder, ".densenet_index", "train.npz"))
        again = records.open_split(folder, "train", policy=policy())
        assert 2 in again.bad
        assert len(again) == len(split)
        assert trained(again, 15)[0].tolist() == late.tolist()
        damage(split.paths[0], int(split.offset[2]) - 12 + byte)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_takes_the_others_and_counts_them(tmp_path, size):
    write(tmp_path, "validation")
    split = records.open_split(str(tmp_path), "validation", policy=policy())
    seen = []
    for rank in range(size):
        with tf.Graph().as_default():
            dataset = pipeline.eval_dataset(
                split, config(), Topology(rank, size), BadRecords(split, policy())
            )
            for images, labels, weights in run(dataset, eval_batches_per_rank(COUNT, 4, size)):
                assert not images[weights == 0].any()
                seen += labels[weights == 1].tolist()
    assert sorted(seen) == sorted(set(range(COUNT)) - {BROKEN, UNDECODABLE, UNLABELLED})


def test_bad_records_that_the_index_did_not_find_are_passed_over_too(tmp_path):
    """Where it found others beside them, they were; alone, they ended the run."""
    payloads = fake.noise_payloads(COUNT, size=(12, 12), classes=COUNT)
    payloads[UNDECODABLE] = fake.example(NO_JPEG, UNDECODABLE + 1)
    for name in ("train", "validation"):
        fake.write_split(tmp_path / "data", name, payloads, shards=1)
    given = config(data_dir=str(tmp_path / "data"), log_dir=str(tmp_path / "run"), bad_record_share=0.05)
    inputs = Inputs(given, Topology(0, 1), train=True, evaluate=True)
    with tf.Graph().as_default():
        run(inputs.train_dataset(tf.constant(0, tf.int64), Stream(0)), 5)
    with tf.Graph().as_default():
        weights = [weight for _, _, weight in run(inputs.eval_dataset(), 5)]
    assert np.sum(weights) == COUNT - 1
    assert inputs.bad_eval_images() == 1
    found = [(line["split"], line["record"]) for line in listed(tmp_path / "run")]
    assert found == [("train", UNDECODABLE), ("validation", UNDECODABLE)]


def listed(folder):
    with open(os.path.join(str(folder), FILE), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_each_is_listed_once_over_ranks_and_starts(folder, tmp_path):
    given = config(data_dir=folder, log_dir=str(tmp_path / "run"), bad_record_share=0.5)
    news = []
    for _ in range(2):
        ranks = [Inputs(given, Topology(rank, 2), train=True, evaluate=False) for rank in range(2)]
        for inputs in ranks:
            with tf.Graph().as_default():
                run(inputs.train_dataset(tf.constant(0, tf.int64), Stream(0)), 8)
        news.append(ranks[0].bad_record_news())
    lines = listed(tmp_path / "run")
    assert sorted(line["record"] for line in lines) == [BROKEN, UNDECODABLE, UNLABELLED]
    assert [len(said) for said in news] == [3, 0]
    reasons = {line["record"]: line["reason"] for line in lines}
    assert "checksum" in reasons[BROKEN]
    assert "float" in reasons[UNLABELLED]
    assert "cannot be decoded" in reasons[UNDECODABLE]
    assert all(line["file"].endswith("train-00000-of-00001") for line in lines)


def test_one_too_many_ends_the_run_and_says_what_would_permit_it(folder, tmp_path):
    split = records.open_split(folder, "train", policy=policy())
    bad = BadRecords(split, policy(0.1, tmp_path))
    with pytest.raises(
        tf.errors.OpError, match=r"record 9 .*3 bad records are too many.*0.1 permits 2 of 20"
    ):
        trained(split, 5, bad=bad)
    with pytest.raises(records.BadRecord, match="too many"):
        bad.check()


def test_what_other_ranks_found_counts(folder, tmp_path):
    split = records.open_split(folder, "train", policy=policy())
    ranks = [BadRecords(split, policy(0.2, tmp_path)) for _ in range(3)]
    for number, rank in enumerate(ranks[:2]):
        rank.add(number, records.BadRecord("place", "reason"))
    with pytest.raises(records.BadRecord, match="5 bad records"):
        ranks[2].add(2, records.BadRecord("place", "reason"))


def test_a_repaired_file_is_not_held_against_it(folder, tmp_path):
    split = records.open_split(folder, "train", policy=policy())
    BadRecords(split, policy(0.15, tmp_path)).add(0, records.BadRecord("place", "reason"))
    os.utime(split.paths[0])
    with open(split.paths[0], "rb") as file:
        whole = file.read()
    with open(split.paths[0], "wb") as file:
        file.write(whole)
    BadRecords(split, policy(0.15, tmp_path)).add(1, records.BadRecord("place", "reason"))
    with pytest.raises(records.BadRecord):
        BadRecords(split, policy(0.15, tmp_path)).add(2, records.BadRecord("place", "reason"))


def test_strict_is_the_first_one(folder):
    assert records.Policy.of(config(strict=True, bad_record_share=0.5)).permitted(COUNT) == 0
    with pytest.raises(UsageError, match="2 records cannot be used"):
        records.open_split(folder, "train", policy=records.Policy.of(config(strict=True)))


def test_a_small_split_is_told_which_share_would_do(tmp_path):
    payloads = fake.noise_payloads(300, size=(4, 4))
    payloads[7] = fake.example(fake.encode(np.zeros((4, 4, 3), np.uint8)), 0.5)
    fake.write_split(tmp_path, "train", payloads)
    with pytest.raises(UsageError, match=r"0.0001 permits 0 of 300 train records; 0.0034 would"):
        records.open_split(str(tmp_path), "train", policy=policy(0.0001))
    assert len(records.open_split(str(tmp_path), "train", policy=policy(0.0034))) == 300


def test_a_list_that_cannot_be_written_costs_a_warning(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    split = records.open_split(folder, "train", policy=policy())
    bad = BadRecords(split, policy(0.5, tmp_path / "file"))
    for record in range(2):
        bad.add(record, records.BadRecord("place", "reason"))
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_lines_that_are_none_are_passed_over(tmp_path):
    news = News(str(tmp_path))
    (tmp_path / FILE).write_bytes(b'\xff\n[1]\n{"file": "f", "record": 1, "byte": 2, "reason": "r"}\nnull\n')
    assert news.lines() == ["bad record: f: record 1 at byte 2: r"]
