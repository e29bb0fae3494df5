"""What is damage and what is a disk, a name or a file of another kind."""

import contextlib
import errno
import os
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import reader
from densenet_keras.checkpoints import saver as checkpoint
from densenet_keras.errors import RunError, UsageError

DATA = ".data-00000-of-00001"


def save(folder, name="model.ckpt-3", step=3):
    """A checkpoint of one variable and a step; returns its prefix."""
    os.makedirs(str(folder), exist_ok=True)
    path = os.path.join(str(folder), name)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = [np.arange(6, dtype=np.float32), np.int64(step)]
        session.run(
            tf.raw_ops.SaveV2(
                prefix=path, tensor_names=["v", "global_step"], shape_and_slices=["", ""], tensors=values
            )
        )
    return path


def overwrite(path, change):
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(change(content))


@pytest.mark.parametrize("name", ["model[lr=0.1]", "run[1]", "what?*", "back\\slash", "[", "a]b"])
def test_a_folder_is_not_taken_for_a_pattern(tmp_path, name):
    path = save(tmp_path / name)
    save(tmp_path / "model1", step=9)  # what the pattern run[1] would find, and others
    assert checkpoint.find_resumable(str(tmp_path / name)).path == path
    with reader.reading(path) as opened:
        assert opened.get_tensor("v").tolist() == [0, 1, 2, 3, 4, 5]


def test_a_checkpoint_s_own_name_is_not_taken_for_a_pattern_either(tmp_path):
    path = save(tmp_path, "best[acc=7].ckpt")
    assert reader.check_every_byte(path) == 3


def test_a_temporary_folder_with_brackets_is_no_pattern_either(tmp_path, monkeypatch):
    os.makedirs(str(tmp_path / "t[1]"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t[1]"))
    assert reader.check_every_byte(save(tmp_path / "run[1]")) == 3


@pytest.mark.parametrize("change", [
    lambda index: b"",
    lambda index: index[:-3],
    lambda index: index[:-1] + b"x",
    lambda index: index[:-48] + b"\xff" * 8 + index[-40:],
    lambda index: index[:-48] + b"\xff" * 40 + index[-8:],
    lambda index: index[:9] + bytes([index[9] ^ 1]) + index[10:],
])  # fmt: skip
def test_a_wrong_index_is_damage_whatever_it_points_to(tmp_path, change):
    path = save(tmp_path)
    overwrite(path + ".index", change)
    with pytest.raises(reader.Damaged, match="damaged"):
        reader.check_every_byte(path)


@pytest.mark.parametrize("change", [lambda data: data[:-2], lambda data: b"\x01" + data[1:]])
def test_wrong_data_are_damage(tmp_path, change):
    path = save(tmp_path)
    overwrite(path + DATA, change)
    with pytest.raises(reader.Damaged, match="damaged"):
        reader.check_every_byte(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_bytes_that_could_not_be_read_are_not_damage(tmp_path, monkeypatch, number):
    """As TensorFlow tells of them: it has found something wrong, and reading again fails."""
    path = save(tmp_path)
    overwrite(path + DATA, lambda data: data[:-2])

    def fail(name, mode):
        if name.endswith(".index"):
            return open(name, mode)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reader, "open", fail, raising=False)
    with pytest.raises(RunError, match=os.strerror(number)) as caught:
        checkpoint.find_resumable(str(tmp_path))
    assert not isinstance(caught.value, reader.Damaged)
    assert checkpoint.newest(str(tmp_path)) == (path, 3)


def test_too_many_open_files_are_not_damage(tmp_path):
    path = save(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, before[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(2):  # enough for nothing, then for the index
            with pytest.raises(RunError, match="Too many open files") as caught:
                reader.check_every_byte(path)
            assert not isinstance(caught.value, (reader.Damaged, reader.Gone))
            os.close(held.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in held:
            os.close(descriptor)


def test_what_was_deleted_is_gone_and_not_damaged(tmp_path):
    path = save(tmp_path)
    os.remove(path + DATA)
    with pytest.raises(reader.Gone, match="does not exist any more"):
        reader.check_every_byte(path)


def test_a_checkpoint_renamed_to_another_step_is_refused_with_both_steps(tmp_path):
    for file in checkpoint_files.files_of(save(tmp_path, "model.ckpt-12", step=12)):
        shutil.move(file, file.replace("-12.", "-4."))
    with pytest.raises(UsageError, match=r"step 4, .*step 12") as caught:
        checkpoint.find_resumable(str(tmp_path))
    assert "model.ckpt-12.*" in str(caught.value)


def test_the_meta_file_names_its_checkpoint(tmp_path):
    path = save(tmp_path)
    open(path + ".meta", "w").close()
    assert checkpoint.resolve(path + ".meta") == path


def test_the_list_of_checkpoints_is_not_one(tmp_path):
    save(tmp_path)
    checkpoint_files.write_state(str(tmp_path), 5)
    with pytest.raises(UsageError, match=f"give the folder, {tmp_path}"):
        checkpoint.resolve(str(tmp_path / "checkpoint"))


def test_an_object_based_checkpoint_is_called_so(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.Variable([1.0, 2.0], name="v", use_resource=True)
        step = tf.compat.v1.train.get_or_create_global_step()
        saver = checkpoint.Saver({"v": variable, "global_step": step}, str(tmp_path), 5)
        session.run(tf.compat.v1.global_variables_initializer())
        path = tf.train.Checkpoint(v=variable).save(str(tmp_path / "objects"), session=session)
        with pytest.raises(UsageError, match="object-based"):
            saver.restore(session, path)
        with pytest.raises(UsageError, match="object-based"):
            saver.restore_body(session, path, ["v"], [])


def test_a_file_of_another_program_is_told_the_way_in(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"weights")
    with pytest.raises(UsageError, match="model.h5 is a file of its own, .*densenet_keras import"):
        checkpoint_files.resolve(str(tmp_path / "model.h5"))
