"""Ways to spoil bytes, JSON and text, as disks, hands and programs of other versions do."""

from __future__ import annotations

import copy
import json
import random
from typing import Any, List, Tuple

_NUMBERS = (0, -1, 1, 2, 3, 7, 255, 65536, 2**31, 2**32, 2**63, -(2**63), 10**30, 1e308, 1e-320, 0.5)
_WORDS = (
    "", " ", "0", "-1", "nan", "inf", "1e400", "true", "null", "a" * 300, "\u00fc", "\u202e", "\x00",
    "\ud800", "../../etc/passwd", "/dev/null", "%s%n", "{}", "10.0.0.1", "[", "model[1]", "1,2,3", "--help",
)  # fmt: skip


def spoiled_bytes(chance: random.Random, data: bytes) -> bytes:
    """`data` with one to four kinds of damage."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        out = _damage(chance, out)
    return bytes(out)


def _damage(chance: random.Random, out: bytearray) -> bytearray:
    size = len(out)
    at = chance.randrange(size + 1) if chance.random() < 0.6 else min(size, chance.randrange(64))
    if chance.random() < 0.15:
        at = max(0, size - chance.randrange(1, 64))
    length = chance.choice((1, 1, 2, 4, 8, 16, 100, 4096))
    kind = chance.randrange(9)
    if kind == 0 and at < size:
        out[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        out[at : at + length] = bytes(chance.randrange(256) for _ in range(min(length, max(0, size - at))))
    elif kind == 2:
        out[at : at + length] = chance.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * min(
            length, max(0, size - at)
        )
    elif kind == 3:
        del out[at : at + length]
    elif kind == 4:
        del out[at:]
    elif kind == 5:
        out[at:at] = bytes(chance.randrange(256) for _ in range(length))
    elif kind == 6:
        out[at:at] = out[max(0, at - length) : at]
    elif kind == 7:
        del out[:at]
    else:
        number = chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
        width = chance.choice((2, 4, 8))
        encoded = (number & ((1 << 8 * width) - 1)).to_bytes(width, chance.choice(("little", "big")))
        out[at : at + width] = encoded
    return out


def spoiled_text(chance: random.Random, text: str) -> bytes:
    """`text` with lines lost, doubled, swapped, words replaced, or its bytes damaged."""
    kind = chance.randrange(6)
    lines = text.splitlines(keepends=True)
    if kind == 0 and lines:
        del lines[chance.randrange(len(lines))]
    elif kind == 1 and lines:
        lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    elif kind == 2:
        chance.shuffle(lines)
    elif kind == 3 and lines:
        words = lines[chance.randrange(len(lines))].split(" ")
        words[chance.randrange(len(words))] = chance.choice(_WORDS)
        lines[chance.randrange(len(lines))] = " ".join(words) + chance.choice(("", "\n", "\r\n", "\x00"))
    elif kind == 4:
        return text.encode(chance.choice(("utf-16", "utf-8-sig", "cp1252", "utf-32")), "replace")
    else:
        return spoiled_bytes(chance, text.encode("utf-8"))
    return "".join(lines).encode("utf-8", "surrogatepass")


def spoiled_json(chance: random.Random, values: Any) -> bytes:
    """`values` as JSON with a node or two replaced, lost or added; now and then no JSON any more."""
    kind = chance.randrange(12)
    if kind == 0:
        return spoiled_bytes(chance, json.dumps(values).encode())
    if kind == 1:
        opened = chance.choice((b"[", b'{"a":', b'[{"b":', b'{"model":', b'{"server_list":['))
        return opened * chance.choice((500, 2000, 100000))
    if kind == 2:
        return json.dumps(arbitrary(chance, 3)).encode("utf-8", "surrogatepass")
    spoiled = copy.deepcopy(values)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        spoiled = _replace_node(chance, spoiled)
    text = json.dumps(spoiled)
    if kind == 3:
        deep = "[" * 100000 + "]" * 100000
        text = text.replace("null", deep, 1) if "null" in text else text.replace(":", ":" + deep + ",", 1)
    return text.encode("utf-8", "surrogatepass")


def _replace_node(chance: random.Random, values: Any) -> Any:
    places = _places(values)
    if not places:
        return arbitrary(chance, 2)
    parent, key = chance.choice(places)
    kind = chance.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[chance.choice((*_WORDS, f"{key}x"))] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 3:
        parent[key] = _near(chance, parent[key])
    else:
        parent[key] = arbitrary(chance, 2)
    return values


def _near(chance: random.Random, value: Any) -> Any:
    """Of another type, or a neighbour: what people and programs confuse."""
    if isinstance(value, bool):
        return chance.choice((int(value), str(value), not value))
    if isinstance(value, (int, float)):
        return chance.choice((value + 1, -value, str(value), float(value), [value], value * 10**6))
    if isinstance(value, str):
        return chance.choice((value + " ", value.upper(), [value], value[:1], value * 3, value + "\n"))
    return chance.choice(([value], {"value": value}, str(value)))


def _places(values: Any) -> List[Tuple[Any, Any]]:
    keys = (
        list(values)
        if isinstance(values, dict)
        else list(range(len(values)))
        if isinstance(values, list)
        else []
    )
    found = [(values, key) for key in keys]
    for key in keys:
        found += _places(values[key])
    return found


def arbitrary(chance: random.Random, depth: int) -> Any:
    """Any JSON value, Infinity and NaN included."""
    kind = chance.randrange(8)
    if kind < 2:
        return chance.choice(_WORDS)
    if kind < 4:
        return chance.choice(_NUMBERS)
    if kind == 4:
        return chance.choice((None, True, False, float("inf"), float("-inf"), float("nan")))
    if kind == 5 or depth == 0:
        return chance.choice(([], {}, "", [None], [[]], "x"))
    if kind == 6:
        return [arbitrary(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(_WORDS): arbitrary(chance, depth - 1) for _ in range(chance.randrange(4))}


def word(chance: random.Random) -> str:
    """What somebody may type or set where a word or number is wanted."""
    return str(chance.choice((*_NUMBERS, *_WORDS)))
