"""What is read of a damaged TFRecord file: all records but the damaged ones, each of which keeps a place."""

import io

import pytest

from densenet_keras.data import framing, tfrecord

PAYLOADS = [bytes([number]) * (40 + 7 * number) for number in range(1, 6)]
WHOLE = b"".join(map(tfrecord.frame, PAYLOADS))
STARTS = [sum(len(tfrecord.frame(payload)) for payload in PAYLOADS[:number]) for number in range(6)]


def read(data):
    return list(framing.stretches(io.BytesIO(data), len(data)))


def changed(data, place, value=None):
    spoiled = bytearray(data)
    spoiled[place] = spoiled[place] ^ 0x10 if value is None else value
    return bytes(spoiled)


@pytest.mark.parametrize("place", range(STARTS[2], STARTS[3]))
def test_one_changed_byte_costs_one_record_and_no_place(place):
    found = read(changed(WHOLE, place))
    assert [stretch.payload for stretch in found] == [*PAYLOADS[:2], None, *PAYLOADS[3:]]
    assert [stretch.start for stretch in found] == STARTS[:5]


@pytest.mark.parametrize("record", [0, 4])
@pytest.mark.parametrize("byte", [0, 8, 20])
def test_so_it_is_at_both_ends_of_a_file(record, byte):
    found = read(changed(WHOLE, STARTS[record] + byte))
    wanted = list(PAYLOADS)
    wanted[record] = None
    assert [stretch.payload for stretch in found] == wanted


def test_zeros_over_a_border_cost_the_two_records(tmp_path):
    spoiled = bytearray(WHOLE)
    spoiled[STARTS[2] - 10 : STARTS[2] + 20] = bytes(30)
    found = read(bytes(spoiled))
    assert [stretch.payload for stretch in found] == [PAYLOADS[0], None, None, *PAYLOADS[3:]]
    assert [stretch.start for stretch in found] == STARTS[:5]


@pytest.mark.parametrize("removed", [1, 12, 30])
def test_missing_bytes_cost_the_record_they_are_missing_from(removed):
    place = STARTS[2] + 14
    found = read(WHOLE[:place] + WHOLE[place + removed :])
    assert [stretch.payload for stretch in found] == [*PAYLOADS[:2], None, *PAYLOADS[3:]]


def test_what_cannot_be_framed_again_is_told_in_bytes():
    spoiled = WHOLE[: STARTS[1]] + bytes(1000) + WHOLE[STARTS[3] :]
    found = read(spoiled)
    assert [stretch.payload for stretch in found] == [PAYLOADS[0], None, *PAYLOADS[3:]]
    assert "1000 bytes are lost" in found[1].damage


def test_the_next_record_is_found_over_the_borders_of_what_is_read_at_once(monkeypatch):
    for chunk in range(13, 60):
        monkeypatch.setattr(framing, "_CHUNK_BYTES", chunk)
        found = read(changed(WHOLE, STARTS[1]))
        assert [stretch.payload for stretch in found] == [PAYLOADS[0], None, *PAYLOADS[2:]], chunk


@pytest.mark.parametrize("kept", [1, 11, 12, 50, -1])
def test_a_file_that_ends_inside_a_record_is_refused(kept):
    end = STARTS[4] + kept if kept > 0 else len(WHOLE) - 1
    with pytest.raises(framing.CutOff):
        read(WHOLE[:end])


def test_other_files_are_told_apart():
    with pytest.raises(tfrecord.FormatError, match="not a TFRecord file"):
        read(b"These are no records." * 10)
