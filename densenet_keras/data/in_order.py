"""Work in threads whose results come in the order of the work, some of it ahead, in bounded memory."""

from __future__ import annotations

import collections
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Deque, Generator, Iterable, Tuple, TypeVar

Item = TypeVar("Item")

# Between an item's beginning and the use of its result: so many bytes, one item always, and so many items.
BYTES_UNDER_WAY = 64_000_000
ITEMS_PER_THREAD = 16


def in_order(
    work: Callable[[Item], Any], items: Iterable[Tuple[int, Item]], threads: int
) -> Generator[Tuple[Item, Any], None, None]:
    """(item, work(item)) for each item, in order.

    Args:
        items: each with the bytes that it holds.
        threads: that work at the same time; what they do should run outside Python's lock.

    Raises:
        Whatever `work` or `items` raise, in its turn.
    """
    running: Deque[Tuple[int, Item, Future]] = collections.deque()
    under_way = 0
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for size, item in items:
                full = len(running) >= ITEMS_PER_THREAD * threads
                while running and (full or under_way + size > BYTES_UNDER_WAY):
                    first_size, first, future = running.popleft()
                    under_way -= first_size
                    yield first, future.result()
                    full = False
                running.append((size, item, pool.submit(work, item)))
                under_way += size
            while running:
                _, first, future = running.popleft()
                yield first, future.result()
        finally:
            for _, _, future in running:
                future.cancel()
