"""Kinds of NPU: what is recognised, and what each allows."""

import pytest

from densenet_keras.backends.ascend import chips
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config


@pytest.fixture
def bus(tmp_path):
    """A PCI bus of a bridge and the devices that a test adds."""

    def add(*devices):
        for number, (vendor, device) in enumerate([("0x8086", "0x2030"), *devices]):
            folder = tmp_path / f"0000:{number:02x}:00.0"
            folder.mkdir()
            (folder / "vendor").write_text(vendor + "\n")
            (folder / "device").write_text(device + "\n")
        (tmp_path / "0000:ff:00.0").mkdir()  # one that says nothing
        return str(tmp_path)

    return add


@pytest.mark.parametrize(
    ("device", "chip"),
    [
        ("0xd801", chips.ATLAS_910),
        ("0xD802", chips.ATLAS_A2),
        ("0xd803", chips.ATLAS_A3),
        ("0xd500", None),
    ],
)
def test_the_kind_is_read_from_the_bus(bus, device, chip):
    assert chips.found(bus(("0x19e5", device), ("0x19e5", device), ("0x19e5", "0x0222"))) is chip


def test_the_number_of_another_vendor_is_not_a_kind(bus):
    assert chips.found(bus(("0x10de", "0xd802"))) is None


def test_a_machine_without_a_bus_has_none(tmp_path):
    assert chips.found(str(tmp_path / "nowhere")) is None


def test_what_is_said_takes_precedence_over_what_is_seen(monkeypatch):
    monkeypatch.setattr(chips, "found", lambda: chips.ATLAS_A2)
    assert chips.of(Config()) is chips.ATLAS_A2
    assert chips.of(Config().replace(npu="910")) is chips.ATLAS_910
    monkeypatch.setattr(chips, "found", lambda: None)
    assert chips.of(Config()) is chips.ATLAS_910


def test_notes_say_what_an_overflow_does_there():
    (note,) = npu_flags.notes(Config().replace(npu="910b"))
    assert "gives Inf or NaN on the 910b" in note
    (note,) = npu_flags.notes(Config().replace(npu="910"))
    assert "saturates on the 910" in note
    assert not npu_flags.notes(Config().replace(npu="910b", precision_mode="must_keep_origin_dtype"))


def test_types_and_modes_that_a_kind_lacks_are_refused():
    bfloat16 = {"npu_option": ("precision_mode_v2=mixed_bfloat16",)}
    assert npu_options.session_options(Config().replace(npu="910b", **bfloat16), 0)
    with pytest.raises(UsageError, match="the 910 has no such type"):
        npu_options.session_options(Config().replace(npu="910", **bfloat16), 0)
    one = {"overflow_debug": "o", "npu_option": ("dump_debug_mode=aicore_overflow",)}
    assert npu_options.session_options(Config().replace(npu="910", **one), 0)
    with pytest.raises(UsageError, match="the 910b takes all only"):
        npu_options.session_options(Config().replace(npu="910b", **one), 0)


def test_each_kind_has_its_memory():
    asked = {"graph_memory_max_size": "40*1024*1024*1024"}
    assert npu_options.session_options(Config().replace(npu="910b", **asked), 0)
    with pytest.raises(UsageError, match="the device gives 31 GiB"):
        npu_options.session_options(Config().replace(npu="910", **asked), 0)
