"""What the places of the training stream hold: images of other records where one is bad. No TensorFlow."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from densenet_keras.data import picture_header
from densenet_keras.data.bad_records import BadRecords
from densenet_keras.data.order import substitute
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.data.records import BadRecord, Split

MOST_ATTEMPTS = 64  # at one place: more than can fail where a run permits less than all to be bad


class TrainPlaces:
    """The encoded images of places of the stream, of others where bad records stand."""

    def __init__(self, split: Split, label_offset: int, bad: BadRecords) -> None:
        self._split, self._label_offset, self._bad = split, label_offset, bad
        self._reader = RecordReader(split)

    def batch(self, records: np.ndarray, draws: np.ndarray, following: np.ndarray) -> Tuple[np.ndarray, ...]:
        """Encoded images, labels, the records whose places these are, their draws; what `_headers` says."""
        taken, attempts = records.copy(), np.zeros(len(records), np.int64)

        def instead(row: int, record: int, error: BadRecord) -> int:
            self._bad.add(record, error)
            attempts[row] += 1
            return self._substitute(records[row], draws[row], int(attempts[row]))

        encoded = self._reader.images(taken, following, instead)
        are_jpeg, shapes = _headers(encoded)
        return encoded, self._labels(taken), records, draws, are_jpeg, shapes

    def attempt(self, record: np.int64, draw: np.ndarray, number: np.int64) -> Tuple[np.ndarray, ...]:
        """Encoded image and label of the record that is tried at a place after `number` undecodable ones."""
        undecodable = 0
        for attempt in range(MOST_ATTEMPTS):
            tried = self._substitute(record, draw, attempt)
            try:
                encoded = self._reader.images(np.array([tried]))[0]
            except BadRecord as error:
                if not error.is_damage:
                    raise
                self._bad.add(tried, error)
                continue
            if undecodable == number:
                return encoded, self._labels(np.array([tried]))[0]
            undecodable += 1
            if undecodable == number:
                self._bad.add(tried, undecodable_record(self._split, tried))
        raise self._none(record)

    def refuse(self, record: np.int64) -> None:
        """Says why no attempt was good."""
        self._bad.check()
        raise self._none(record)

    def _none(self, record: np.int64) -> BadRecord:
        tried = f"it is bad, and so were {MOST_ATTEMPTS - 1} others tried in its place"
        return BadRecord(self._split.describe(int(record)), tried)

    def _substitute(self, record: np.int64, draw: np.ndarray, attempt: int) -> int:
        if attempt >= MOST_ATTEMPTS:
            raise self._none(record)
        return int(record) if attempt == 0 else substitute(draw, attempt, len(self._split))

    def _labels(self, records: np.ndarray) -> np.ndarray:
        return (self._split.label[records] - np.int32(self._label_offset)).astype(np.int32)


def undecodable_record(split: Split, record: int) -> BadRecord:
    """What to say of a record with intact bytes that no decoder takes."""
    return BadRecord(
        split.describe(record),
        "the image cannot be decoded, though its checksum matches: it was written damaged",
        "write the shard anew without it",
    )


def _headers(encoded: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Which of these [n] images are JPEGs, and heights and widths of all: [n] bool, [n, 2] int32.

    An image with a header that cannot be read is emptied: its batch fails and is decoded image by image,
    where TensorFlow's own reading of that header decides.
    """
    are_jpeg, shapes = np.zeros(len(encoded), bool), np.ones([len(encoded), 2], np.int32)
    for row, image in enumerate(encoded):
        try:
            header = picture_header.read(image)
        except picture_header.HeaderError:
            encoded[row] = b""
        else:
            are_jpeg[row] = header.kind == picture_header.JPEG
            shapes[row] = header.height, header.width
    return are_jpeg, shapes
