"""Files of arrays: recognised by what they hold, read as written, refused where they are damaged."""

import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

from densenet_keras.errors import UsageError
from densenet_keras.network.weights import formats, mindspore_ckpt
from tests.support import foreign

ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.array([0.5, -2.0], np.float16),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}


def write_npz(path, arrays):
    np.savez(str(path), **arrays)
    return str(path)


WRITERS = {
    "safetensors": foreign.write_safetensors,
    "npz": write_npz,
    "MindSpore checkpoint": foreign.write_mindspore,
}


@pytest.fixture(params=sorted(WRITERS))
def written(request, tmp_path):
    return request.param, WRITERS[request.param](tmp_path / "weights.bin.npz", ARRAYS)


def refused(path):
    with pytest.raises(UsageError) as caught:
        read_all(str(path))
    return str(caught.value)


def read_all(path):
    tensors = formats.read(path)
    return {name: tensors.read(name) for name in tensors.shapes}


def test_arrays_come_back_as_they_were_whatever_the_file_is_called(written):
    kind, path = written
    tensors = formats.read(path)
    assert tensors.format == kind
    assert tensors.shapes == {name: array.shape for name, array in ARRAYS.items()}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors.read(name), array)


@pytest.mark.parametrize("cut", [10, 40, 200])
def test_a_file_that_was_cut_short_is_refused_by_name(written, cut):
    _, path = written
    with open(path, "r+b") as file:
        file.truncate(cut)
    assert path in refused(path)


def test_what_the_real_mindspore_wrote_is_read():
    """fixtures/mindspore.ckpt: with its checksum, a scalar, an integer and bfloat16."""
    path = os.path.join(foreign.FIXTURES, "mindspore.ckpt")
    tensors = formats.read(path)
    assert tensors.read("scalar") == np.float32(2.5)
    np.testing.assert_array_equal(tensors.read("half"), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(tensors.read("single").ravel(), np.linspace(-1, 1, 24, dtype=np.float32))
    np.testing.assert_array_equal(tensors.read("double"), [1e-40, 1.0])
    np.testing.assert_array_equal(tensors.read("brain"), np.array([1.5, -2.0], np.float32))
    assert tensors.read("counter") == 7
    assert tensors.read("epoch_num") == 3


def test_one_changed_byte_of_a_mindspore_file_with_a_checksum_is_found(tmp_path):
    path = foreign.write_mindspore(tmp_path / "a.ckpt", ARRAYS, crc=True)
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(b"\x01")
    assert "its checksum does not match" in refused(path)


def test_a_parameter_that_mindspore_cut_into_slices_is_whole_again(tmp_path):
    array = ARRAYS["a.weight"]
    raw = array.tobytes()
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"".join(foreign.mindspore_value("a", array, raw[i : i + 32]) for i in (0, 32, 64)))
    np.testing.assert_array_equal(formats.read(str(path)).read("a"), array)
    path.write_bytes(foreign.mindspore_value("a", array, raw[:32]))
    assert "a has 32 bytes of 96" in refused(path)


def test_no_other_file_is_taken_for_one_of_mindspore():
    for start in (b"", b"\n", b"\n\x05hello world", b"\n" + b"\xff" * 10, b"# text\n"):
        assert not mindspore_ckpt.recognises(start)


def test_bfloat16_of_safetensors_keeps_its_values(tmp_path):
    upper = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    path = foreign.write_safetensors(tmp_path / "a", {"brain": upper}, {"format": "pt"})
    np.testing.assert_array_equal(formats.read(path).read("brain"), np.array([1.5, -2.0], np.float32))


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": 3}',
        b"{broken",
        b'{"a": {}}',
        b'{"a": ' + 100000 * b"[",
    ],
)
def test_a_header_of_safetensors_that_contradicts_itself_is_refused(tmp_path, header):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "its header cannot be read" in refused(path)


def torch_zip(path):
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(8))


def torch_legacy(path):
    path.write_bytes(pickle.dumps({"a": 1}, protocol=2))


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
def test_a_pickle_is_never_opened_and_the_way_out_is_named(tmp_path, write):
    write(tmp_path / "model.safetensors")
    text = refused(tmp_path / "model.safetensors")
    assert "unpickling runs whatever code a file holds" in text
    assert "python scripts/torch_to_npz.py" in text


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    np.savez(str(tmp_path / "a.npz"), a=np.array([{"b": 1}], object))
    assert "is a Python object, which is never unpickled" in refused(tmp_path / "a.npz")


def test_hdf5_that_is_not_of_keras_says_how_to_save_it(tmp_path):
    with h5py.File(str(tmp_path / "a.h5"), "w") as file:
        file["a"] = [1.0]
    assert "model.save_weights('weights.h5')" in refused(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [("model_config", 100000 * "["), ("model_config", np.void(b"{}")), ("layer_names", 7),
     ("layer_names", [b"\xff"]), ("layer_names", [b"none"])],
)  # fmt: skip
def test_hdf5_with_other_attributes_than_those_of_keras_is_refused(tmp_path, name, value):
    with h5py.File(str(tmp_path / "a.h5"), "w", track_order=True) as file:
        file.create_group("layer").attrs["weight_names"] = []
        file.attrs["layer_names"] = [b"layer"]
        file.attrs.create(name, value, dtype=h5py.special_dtype(vlen=str) if isinstance(value, str) else None)
    assert "is damaged or incomplete" in refused(tmp_path / "a.h5")


def test_a_number_in_place_of_a_name_takes_no_memory(tmp_path):
    """A field of two kinds: bytes(2**40) would be as many zeros."""
    value = b"\x0a\x01a\x08\x80\x80\x80\x80\x80\x20\x12\x00"  # tag "a", tag 2**40, an empty tensor
    (tmp_path / "a.ckpt").write_bytes(b"\x0a" + bytes([len(value)]) + value)
    with pytest.raises(UsageError, match="a number where a name was expected"):
        mindspore_ckpt.read(str(tmp_path / "a.ckpt"))


def test_other_files_are_refused_with_what_there_is(tmp_path):
    (tmp_path / "a.txt").write_text("weights")
    assert "not a file of weights that is known here: Keras .h5, .safetensors" in refused(tmp_path / "a.txt")
    assert "does not exist" in refused(tmp_path / "gone")
    with zipfile.ZipFile(str(tmp_path / "a.zip"), "w") as archive:
        archive.writestr("readme", "")
    assert "a ZIP archive, but no .npz" in refused(tmp_path / "a.zip")
    with zipfile.ZipFile(str(tmp_path / "a.keras"), "w") as archive:
        archive.writestr("model.weights.h5", "")
    assert "model.save('model.h5')" in refused(tmp_path / "a.keras")
