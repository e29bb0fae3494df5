"""How the cost of an epoch's order grows with the number of pictures, up to ImageNet's.

    python benchmarks/growth.py

Processor time of the first batch of an epoch, which draws the permutation, and of any other batch, from a
thousand records to 1,281,167, with the memory of order and index. Batches cost the same at any size.
"""

from __future__ import annotations

import functools
import tracemalloc

import side_by_side

from densenet_keras.data.order import TrainOrder

RECORDS = (1_000, 10_000, 100_000, 1_281_167)
BATCH = 256
BYTES_OF_INDEX = 8 + 4 + 4  # offset, length and shard of a record at most
OTHERS = 100


def main() -> None:
    small = _order(RECORDS[0])
    for records in RECORDS:
        tracemalloc.start()
        order = _order(records)
        first = side_by_side.reading(functools.partial(order.batch, 0))
        kept = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        later = side_by_side.reading(functools.partial(_batches, order))["cpu_seconds"] / OTHERS
        print(
            f"{records} records: first batch {1000 * first['cpu_seconds']:.1f} ms, others "
            f"{1e6 * later:.0f} µs; order {kept:.1f} MB, index <= {records * BYTES_OF_INDEX / 1e6:.1f} MB",
            flush=True,
        )
    sides = {"large": functools.partial(_batches, order), "small": functools.partial(_batches, small)}
    found = side_by_side.in_turns(
        {n: functools.partial(side_by_side.reading, s) for n, s in sides.items()}, 5
    )
    what = f"a batch of the order of {RECORDS[-1]} records"
    side_by_side.row(what, f"one of {RECORDS[0]}", side_by_side.ratios(found["large"], found["small"]))


def _order(records: int) -> TrainOrder:
    return TrainOrder(seed=0, records=records, batch_size=BATCH, rank=0, size=1)


def _batches(order: TrainOrder) -> None:
    for _ in range(OTHERS):
        order.batch(1)  # of the first pass, even with 1,000 records


if __name__ == "__main__":
    main()
