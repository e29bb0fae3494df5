"""From pictures to whole shards: read and judged in threads, written in order."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from array import array
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from densenet_keras import files
from densenet_keras.data import digests, tfrecord
from densenet_keras.data.in_order import in_order
from densenet_keras.data.prepare.listing import MAX_FILE_BYTES, Listing
from densenet_keras.data.prepare.pictures import Judge, Picture, Unusable
from densenet_keras.data.prepare.plan import Plan
from densenet_keras.data.prepare.workspace import RECORD_COLUMNS, Account, Workspace

FIRST_LABEL = 1  # TF-Slim's; 0 is its background class
CHANGES = ("turned", "converted", "shrunk")  # bits 0, 1, 2 of a record's column `changes`
# Pictures that go to a thread at once, and their bytes: a hand-over costs as much as reading a small one.
_CHUNK_PICTURES, _CHUNK_BYTES = 16, 4_000_000

Progress = Callable[[int, int], None]


class Record(NamedTuple):
    """A picture ready to be written."""

    framed: List[bytes]  # in pieces
    framed_bytes: int
    image_start: int  # byte of the payload
    image_bytes: int
    digest: bytes  # of the picture as it was read
    changes: int


class LeftOut(NamedTuple):
    """A picture that is not written."""

    reason: str


class RecordMaker:
    """Makes records of pictures; safe to call from several threads.

    Args:
        synsets: whether the classes' folders are named by synsets.
    """

    def __init__(self, listing: Listing, judge: Judge, texts: Tuple[str, ...], synsets: bool) -> None:
        self._listing, self._judge = listing, judge
        self._texts, self._synsets = texts, synsets

    def chunk(self, rows: np.ndarray) -> List[Union[Record, LeftOut]]:
        """A Record or LeftOut for each row."""
        read = [self._read(int(row)) for row in rows]
        pictures = iter(self._judge.pictures([one for one in read if isinstance(one, bytes)]))
        return [
            self._record(int(row), one, next(pictures)) if isinstance(one, bytes) else one
            for row, one in zip(rows, read)
        ]

    def _read(self, row: int) -> Union[bytes, LeftOut]:
        if self._listing.size[row] > MAX_FILE_BYTES:  # before it fills the memory
            return LeftOut(f"{self._listing.size[row]} bytes, more than {MAX_FILE_BYTES // 1_000_000} MB")
        try:
            return self._listing.read(row)
        except OSError as error:
            return LeftOut(f"cannot be read: {error.strerror}")

    def _record(self, row: int, read: bytes, picture: Union[Picture, Unusable]) -> Union[Record, LeftOut]:
        if isinstance(picture, Unusable):
            return LeftOut(str(picture))
        before, image = tfrecord.example_pieces(self._features(row, picture))
        framed = tfrecord.frame_pieces([before, image])
        changes = picture.turned | picture.converted << 1 | picture.shrunk << 2
        framed_bytes = sum(map(len, framed))
        return Record(framed, framed_bytes, len(before), len(image), digests.digest(read), changes)

    def _features(self, row: int, picture: Picture) -> Dict[str, Any]:
        """The keys of TF-Slim's build_imagenet_data.py; the image last, so that its place is known."""
        label = int(self._listing.label[row])
        features: Dict[str, Any] = {
            "image/height": picture.height,
            "image/width": picture.width,
            "image/colorspace": "RGB",  # what decoders make of every picture, says TF-Slim
            "image/channels": 3,
            "image/class/label": label + FIRST_LABEL,
            "image/class/text": self._texts[label],
            "image/format": picture.kind,
            "image/filename": self._listing.name(row),
        }
        if self._synsets:
            features["image/class/synset"] = self._listing.classes[label]
        features[tfrecord.IMAGE_KEY] = picture.encoded
        return features


def write_missing(
    plan: Plan, maker: RecordMaker, listing: Listing, workspace: Workspace, threads: int,
    progress: Optional[Progress],
) -> None:  # fmt: skip
    """Writes every shard of the plan that is not whole yet.

    What is written depends on the plan alone, not on `threads` or on where earlier work ended.

    Args:
        progress: called with (pictures done, pictures in all) after every few.

    Raises:
        OSError: a shard cannot be written.
    """
    missing = [shard for shard in plan.shards if not workspace.is_whole(shard.name)]
    chunks = {shard.name: list(_chunks(shard.rows, listing.size)) for shard in missing}
    done = plan.pictures - sum(len(shard.rows) for shard in missing)
    if progress is not None:
        progress(done, plan.pictures)
    waiting = ((int(listing.size[rows].sum()), rows) for shard in missing for rows in chunks[shard.name])
    with contextlib.closing(in_order(maker.chunk, waiting, threads)) as results:
        for shard in missing:
            account = _ShardAccount(listing)
            with files.whole_file(workspace.path(shard.name), "wb") as file:
                for rows, made in itertools.islice(results, len(chunks[shard.name])):
                    account.write(file, rows, made)
                    done += len(rows)
                    if progress is not None:
                        progress(done, plan.pictures)
            workspace.write_account(shard.name, account.close())


def _chunks(rows: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """`rows` in order, in parts of few pictures and few bytes."""
    start = held_bytes = 0
    for place, row in enumerate(rows):
        size = int(sizes[row])
        if place > start and (place - start >= _CHUNK_PICTURES or held_bytes + size > _CHUNK_BYTES):
            yield rows[start:place]
            start, held_bytes = place, 0
        held_bytes += size
    if start < len(rows):
        yield rows[start:]


class _ShardAccount:
    """Writes the records of one shard and keeps its account."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._columns = {column: array(np.dtype(kind).char) for column, kind in RECORD_COLUMNS.items()}
        self._digests = bytearray()
        self._left_out: Dict[int, str] = {}
        self._sha256 = hashlib.sha256()
        self._end = 0

    def write(self, file: Any, rows: np.ndarray, made: List[Any]) -> None:
        for row, record in zip(map(int, rows), made):
            if isinstance(record, LeftOut):
                self._left_out[row] = record.reason
                continue
            for piece in record.framed:
                file.write(piece)
                self._sha256.update(piece)
            start = self._end + tfrecord.HEADER_BYTES
            self._end += record.framed_bytes
            length = self._end - tfrecord.FOOTER_BYTES - start
            label = int(self._listing.label[row]) + FIRST_LABEL
            values = (row, start, length, label, record.image_start, record.image_bytes, record.changes)
            for column, value in zip(self._columns.values(), values):
                column.append(value)
            self._digests += record.digest

    def close(self) -> Account:
        columns = {
            name: np.frombuffer(self._columns[name], kind) if len(self._columns[name]) else np.zeros(0, kind)
            for name, kind in RECORD_COLUMNS.items()
        }
        stacked = digests.stacked(bytes(self._digests))
        return Account(columns, stacked, self._left_out, self._sha256.hexdigest())
