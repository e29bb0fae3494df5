"""How costs grow with the number of pictures, up to ImageNet's, and with that of checkpoints in a folder.

    python benchmarks/growth.py

Pictures: the index of a data set, built at its first start and kept for later ones; the first batch of an
epoch, which draws the permutation; any other batch; the memory of index and permutation. The records are as
small as records can be, so that reading costs nothing; benchmarks/first_index.py has real sizes. Checkpoints:
finding the newest, and what a save does beside writing. Processor time. benchmarks/ranks.py has ranks.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import tracemalloc
from typing import Any, Callable, List

import side_by_side

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest
from densenet_keras.data import record_index, tfrecord
from densenet_keras.data.order import TrainOrder

RECORDS = (1_000, 10_000, 100_000, 1_281_167)
BATCH = 256
CHECKPOINTS = (1, 5, 50, 500)
ROUNDS = 5
OFTEN = 100  # of what takes microseconds


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        for records in RECORDS:
            pictures(os.path.join(folder, f"{records}"), records)
        order_of_batches()
        checkpoints(os.path.join(folder, "runs"))


def pictures(folder: str, records: int) -> None:
    """What a data set of so many records costs, in a new folder."""
    index = functools.partial(
        record_index.load_or_build,
        record_index.places(folder, "train", {}),
        write_records(folder, records),
    )
    costs = {
        "index, built": side_by_side.reading(index)["cpu_seconds"],
        "index, kept from an earlier start": seconds(index),
        "first batch of an epoch": seconds(functools.partial(_drawn, records)),
        "any other batch": seconds(functools.partial(_batches, _order(records))) / OFTEN,
    }
    for what, each in costs.items():
        side_by_side.point("pictures", records, what, each, "s")
    megabytes = memory(lambda: [index(), _drawn(records)])
    side_by_side.point("pictures", records, "memory of index and permutation", megabytes, "MB")


def order_of_batches() -> None:
    """The row of a batch of the largest data set against one of the smallest."""
    small, large = (functools.partial(_batches, _order(records)) for records in (RECORDS[0], RECORDS[-1]))
    what = f"a batch of the order of {RECORDS[-1]} records"
    side_by_side.row(what, f"one of {RECORDS[0]}", in_turns(large, small))


def checkpoints(folder: str) -> None:
    """What many checkpoints in a run folder cost."""
    finders: List[Callable[[], Any]] = []
    for count in CHECKPOINTS:
        run = os.path.join(folder, f"{count}")
        write_checkpoints(run, count)
        finders.append(functools.partial(_newest, run))
        costs = {
            "finding the newest": seconds(finders[-1]) / OFTEN,
            "a save, without its writing": seconds(functools.partial(save, run, count)),
        }
        for what, each in costs.items():
            side_by_side.point("checkpoints", count, what, each, "s")
    what = f"finding the newest of {CHECKPOINTS[-1]} checkpoints"
    side_by_side.row(what, f"finding that of {CHECKPOINTS[1]}", in_turns(finders[-1], finders[1]))


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds, the median after a round that does not count."""
    found = side_by_side.in_turns({"": functools.partial(side_by_side.reading, work)}, ROUNDS)
    return statistics.median(each["cpu_seconds"] for each in found[""])


def in_turns(work: Callable[[], Any], peer: Callable[[], Any]) -> List[float]:
    """Ratios of the processor time of `work` to that of `peer`."""
    sides = {"work": work, "peer": peer}
    found = side_by_side.in_turns(
        {side: functools.partial(side_by_side.reading, each) for side, each in sides.items()}, ROUNDS
    )
    return side_by_side.ratios(found["work"], found["peer"])


def memory(work: Callable[[], Any]) -> float:
    """Megabytes that Python and numpy hold with the result of `work`."""
    tracemalloc.start()
    held = work()
    megabytes = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    del held
    return megabytes


def write_records(folder: str, records: int) -> List[str]:
    """The smallest records that an index takes for pictures, in one shard; its path.

    One, because threads only get in each other's way where nothing is to be read.
    """
    record = tfrecord.frame(
        tfrecord.encode_example({"image/encoded": b"\xff\xd8\xff", "image/class/label": 1})
    )
    os.mkdir(folder)
    path = os.path.join(folder, "train-00000-of-00001")
    with open(path, "wb") as file:
        file.write(record * records)
    return [path]


def write_checkpoints(folder: str, count: int) -> None:
    """Checkpoints 1 to `count` of a run, their contents left out."""
    os.makedirs(folder)
    for step in range(1, count + 1):
        prefix = os.path.join(folder, f"{checkpoint_files.BASENAME}-{step}")
        _write_checkpoint(prefix, step)


def save(folder: str, step: int) -> None:
    """A save of `step` with nothing in it."""
    prefix = os.path.join(folder, f"{checkpoint_files.BASENAME}-{step}")
    with checkpoint_files.publishing(prefix) as temporary:
        _write_checkpoint(temporary, step)
    checkpoint_files.write_state(folder, keep=0)


def _write_checkpoint(prefix: str, step: int) -> None:
    for ending in checkpoint_files.ENDINGS:
        with open(prefix + ending, "wb"):
            pass
    manifest.write(prefix, checkpoint_files.ENDINGS, {"step": step})


def _newest(folder: str) -> None:
    for _ in range(OFTEN):
        checkpoint_files.newest(folder)


def _order(records: int) -> TrainOrder:
    return TrainOrder(seed=0, records=records, batch_size=BATCH, rank=0, size=1)


def _drawn(records: int) -> TrainOrder:
    """An order whose first pass has been drawn."""
    order = _order(records)
    order.batch(0)
    return order


def _batches(order: TrainOrder) -> None:
    for _ in range(OFTEN):
        order.batch(1)  # of the first pass, even with 1,000 records


if __name__ == "__main__":
    main()
