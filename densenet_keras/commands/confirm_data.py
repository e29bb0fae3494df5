"""A small data set for `confirm`, of links to the first shards of a large one."""

from __future__ import annotations

import os
import shutil
from typing import List

from densenet_keras.data import records
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import UsageError


def link_part(data_dir: str, folder: str, images: int) -> int:
    """Makes `folder` a data set of at least `images` training images and one validation shard of `data_dir`.

    Nothing is written to `data_dir`, nor is all of it read.

    Returns:
        The number of training images in it.

    Raises:
        UsageError: `data_dir` is no data set, or has fewer images.
    """
    shards = find_shards(data_dir, records.TRAIN)
    validation = find_shards(data_dir, records.VALIDATION)
    count, found = 1, 0
    while True:
        if os.path.isdir(folder):
            shutil.rmtree(folder)
        os.makedirs(folder)
        _link(shards[:count], folder, records.TRAIN)
        _link(validation[:1], folder, records.VALIDATION)
        found = len(records.open_split(folder, records.TRAIN))
        if found >= images or count == len(shards):
            break
        count = min(len(shards), max(count + 1, -(-count * images // max(found, 1))))
    if found < images:
        raise UsageError(
            f"--data_dir {data_dir} has {found} training images; {images} are needed for an epoch that holds "
            "the steps which are compared. Lower --batch_size, or give a larger data set"
        )
    return found


def _link(paths: List[str], folder: str, name: str) -> None:
    for number, path in enumerate(paths):
        os.symlink(os.path.abspath(path), os.path.join(folder, f"{name}-{number:05d}-of-{len(paths):05d}"))
