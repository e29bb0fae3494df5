"""All implementations of the checksum agree with the published values."""

import numpy as np
import pytest

from densenet_keras.data import crc32c

# RFC 3720, appendix B.4, and the polynomial's check value.
PUBLISHED = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.mark.parametrize(("data", "expected"), PUBLISHED)
def test_published_values(data, expected):
    assert crc32c.crc32c(data) == expected
    assert crc32c.numpy_crc32c(data) == expected


def test_pieces_count_as_the_whole():
    whole = bytes(range(100)) * 9
    for cut in (0, 1, 500, len(whole)):
        assert crc32c.crc32c(whole[:cut], whole[cut:]) == crc32c.crc32c(whole)
        assert crc32c.numpy_crc32c(whole[:cut], whole[cut:]) == crc32c.crc32c(whole)


def test_numpy_fallback_agrees_at_every_length_and_lane_count():
    random = np.random.RandomState(0)
    for length in list(range(70)) + [255, 256, 257, 511, 512, 513, 1025, 40000]:
        data = random.bytes(length)
        assert crc32c.numpy_crc32c(data) == crc32c.crc32c(data), length


def test_a_build_without_the_symbol_falls_back_to_numpy(monkeypatch):
    monkeypatch.setattr(crc32c, "_google", lambda: None)
    monkeypatch.setattr(crc32c, "_tensorflow", lambda: lambda data: 0)  # there, but wrong
    crc32c.implementation.cache_clear()
    try:
        assert crc32c.implementation().name == "numpy"
    finally:
        crc32c.implementation.cache_clear()
