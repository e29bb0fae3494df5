"""One record at a time: what it says, what its picture is, and what is wrong with it."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from densenet_keras.data import digests, exif, picture_header, tfrecord
from densenet_keras.data.check.findings import ERROR, WARNING, Finding, Place
from densenet_keras.data.decoder import Decoder, UndecodableError
from densenet_keras.data.picture_header import JPEG, PNG, HeaderError

_CHUNK_RECORDS, _CHUNK_BYTES = 16, 4_000_000
_READ_AHEAD_BYTES = 1 << 20
_COLOURS = {
    JPEG: {1: "grey", 3: "colour", 4: "CMYK"},
    PNG: {1: "grey", 2: "grey with alpha", 3: "colour", 4: "colour with alpha"},
}


class Raw(NamedTuple):
    """A record as it lies in its shard."""

    place: Place
    payload: bytes
    footer: bytes


class Broken(NamedTuple):
    """The point of a shard behind which no record can be found."""

    place: Place
    reason: str


class Facts(NamedTuple):
    """What is known of a record; None or "" where it does not say.

    Attributes:
        is_record: False for the point where a shard is broken.
        kind: format and colours, such as "JPEG grey".
        rotated: whether its EXIF asks to turn it.
        digest: of the picture's bytes.
    """

    place: Place
    findings: Tuple[Finding, ...]
    is_record: bool = True
    label: Optional[int] = None
    text: str = ""
    kind: str = ""
    height: int = 0
    width: int = 0
    rotated: bool = False
    digest: bytes = b""


def chunks(split: str, paths: Sequence[str]) -> Iterator[Tuple[int, List[Any]]]:
    """(bytes read, records) of the shards of a split, a few at a time: Raw, or Broken where one ends."""
    for path in paths:
        held: List[Any] = []
        held_bytes = number = end = 0
        try:
            with open(path, "rb", buffering=_READ_AHEAD_BYTES) as file:
                for _, payload, footer in tfrecord.read_records(file, os.path.getsize(path)):
                    held.append(Raw(Place(split, path, number, end), payload, footer))
                    size = tfrecord.HEADER_BYTES + len(payload) + tfrecord.FOOTER_BYTES
                    number, end, held_bytes = number + 1, end + size, held_bytes + size
                    if len(held) >= _CHUNK_RECORDS or held_bytes >= _CHUNK_BYTES:
                        yield held_bytes, held
                        held, held_bytes = [], 0
        except tfrecord.FormatError as error:
            held.append(Broken(Place(split, path, number, end), str(error)))
        except OSError as error:
            held.append(Broken(Place(split, path, number, end), f"cannot be read: {error.strerror}"))
        if held:
            yield held_bytes, held


class Examiner:
    """Looks at records; safe to call from several threads."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def chunk(self, records: List[Any]) -> List[Facts]:
        """The facts of some records."""
        return [self._facts(record) for record in records]

    def _facts(self, record: Any) -> Facts:
        place = record.place
        if isinstance(record, Broken):
            lost = "no record behind it can be found; copy the file again"
            finding = Finding(ERROR, "damaged shard", f"{record.reason}; {lost}", place)
            return Facts(place, (finding,), is_record=False)
        try:
            tfrecord.check_payload(record.footer, record.payload)
            features = tfrecord.read_example(record.payload)
        except tfrecord.FormatError as error:
            return Facts(place, (Finding(ERROR, "damaged record", str(error), place),))
        findings: List[Finding] = []
        label = _label(features, place, findings)
        text = features.get("image/class/text", [])
        name = text[0].decode("utf-8", "replace") if _is_bytes(text) else ""
        facts = Facts(place, (), label=label, text=name)
        facts = self._picture(features, facts, findings)
        return facts._replace(findings=tuple(findings))

    def _picture(self, features: Dict[str, List[Any]], facts: Facts, findings: List[Finding]) -> Facts:
        """`facts` with those of the picture; what is wrong with it goes to `findings`."""
        place = facts.place
        values = features.get(tfrecord.IMAGE_KEY)
        if values is None or not _is_bytes(values):
            message = _missing(tfrecord.IMAGE_KEY, features, "a picture")
            findings.append(Finding(ERROR, "no picture", message, place))
            return facts
        encoded = values[0]
        try:
            header = picture_header.read(encoded)
            if header.kind not in (JPEG, PNG):
                raise HeaderError(f"a {header.kind} picture, but training reads JPEG and PNG")
            (size,) = self._decoder.sizes([encoded], [header])
            if isinstance(size, UndecodableError):
                raise size
        except (HeaderError, UndecodableError) as error:
            findings.append(Finding(ERROR, "undecodable picture", f"the picture is {error}", place))
            return facts
        height, width = size
        rotated = exif.orientation(encoded) != exif.UPRIGHT
        _compare(features, header.kind, height, width, place, findings)
        kind = f"{header.kind} {_COLOURS[header.kind].get(header.channels, '')}"
        return facts._replace(
            kind=kind, height=height, width=width, rotated=rotated, digest=digests.digest(encoded)
        )


def _is_bytes(values: List[Any]) -> bool:
    return len(values) == 1 and isinstance(values[0], bytes)


def _label(features: Dict[str, List[Any]], place: Place, findings: List[Finding]) -> Optional[int]:
    values = features.get(tfrecord.LABEL_KEY)
    if values is not None and len(values) == 1 and isinstance(values[0], int):
        return values[0]
    message = _missing(tfrecord.LABEL_KEY, features, "one whole number")
    findings.append(Finding(ERROR, "no label", message, place))
    return None


def _missing(key: str, features: Dict[str, List[Any]], wanted: str) -> str:
    """What stands in the place of what should be there."""
    if key not in features:
        return f"there is no {key}; the keys are {', '.join(sorted(features)) or 'none'}"
    values = features[key]
    if len(values) != 1:
        return f"{key} holds {len(values)} values, not {wanted}"
    kind = {bytes: "bytes (text)", float: "a float", int: "a whole number"}[type(values[0])]
    return f"{key} holds {kind}, not {wanted}"


def _compare(
    features: Dict[str, List[Any]], kind: str, height: int, width: int, place: Place, findings: List[Finding]
) -> None:
    """Finds what the record says of its picture and is not so."""
    stated_height, stated_width = (features.get(f"image/{key}") or [0] for key in ("height", "width"))
    if (stated_height[0] or height, stated_width[0] or width) != (height, width):
        stated = f"{stated_width[0]}x{stated_height[0]}"
        message = f"the record says {stated} pixels, the picture is {width}x{height}"
        findings.append(Finding(WARNING, "wrong size", message, place))
    said = features.get("image/format", [])
    if _is_bytes(said) and said[0].decode("latin-1").upper().replace("JPG", "JPEG") not in ("", kind, "RAW"):
        message = f"the record says {said[0].decode('latin-1')}, the picture is {kind}"
        findings.append(Finding(WARNING, "wrong format", message, place))
