"""Manifests: what a checkpoint says of itself, and what is noticed by it."""

import json
import os
import shutil

import pytest

import densenet_keras
from densenet_keras import load_model
from densenet_keras.checkpoints import files, manifest, reader, run_folder, saver
from densenet_keras.checkpoints.verification import verify
from densenet_keras.commands import main
from densenet_keras.errors import RunError, UsageError
from tests.support.networks import write_run

ENDINGS = (*files.ENDINGS, manifest.ENDING)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("written"), step=5, num_classes=5)


@pytest.fixture
def run(written, tmp_path):
    """A run folder with the checkpoint of step 5."""
    return shutil.copytree(written, str(tmp_path / "run"))


@pytest.fixture
def path(run):
    return os.path.join(run, "model.ckpt-5")


def change_byte(file, position=-20):
    with open(file, "r+b") as opened:
        opened.seek(position, os.SEEK_END)
        byte = opened.read(1)[0]
        opened.seek(position, os.SEEK_END)
        opened.write(bytes([byte ^ 1]))


def verified(run, capsys, code):
    """Path within the run to (whole, note), as the command tells."""
    assert main.run_command(["verify", run, "--json", "true"]) == code
    found = json.loads(capsys.readouterr().out)
    return {os.path.relpath(each["path"], run): (each["whole"], each["note"]) for each in found}


def test_a_manifest_tells_step_files_versions_and_configuration(path):
    found = manifest.read(path)
    assert (found["checkpoint"], found["step"]) == ("model.ckpt-5", 5)
    assert found["configuration"]["model"]["num_classes"] == 5
    assert set(found["versions"]) == {"densenet_keras", "python", "numpy", "tensorflow"}
    assert found["versions"]["densenet_keras"] == densenet_keras.__version__
    sizes = {ending: marks["bytes"] for ending, marks in found["files"].items()}
    assert sizes == {ending: os.path.getsize(path + ending) for ending in files.ENDINGS}


@pytest.mark.parametrize("ending", files.ENDINGS)
def test_a_file_of_another_size_is_passed_over_by_all_who_choose(run, path, ending):
    newer = os.path.join(run, "model.ckpt-6")
    for each in ENDINGS:
        shutil.copyfile(path + each, newer + each)
    assert files.resolve(run) == newer
    os.truncate(newer + ending, os.path.getsize(newer + ending) - 1)
    assert files.resolve(run) == path
    with pytest.raises(reader.Damaged, match=r"model\.ckpt-6.*bytes.*when it was saved"):
        load_model(newer)
    assert saver.find_resumable(run)[:2] == (path, 5)


@pytest.mark.parametrize("ending", files.ENDINGS)
def test_any_changed_byte_is_found_before_a_run_continues(run, path, ending):
    change_byte(path + ending, -os.path.getsize(path + ending) // 2)
    with pytest.raises(reader.Damaged):
        reader.check_every_byte(path)


def test_a_checkpoint_without_manifest_loads_as_before(run, path, capsys):
    os.remove(path + manifest.ENDING)
    assert saver.find_resumable(run)[:2] == (path, 5)
    assert load_model(run).step == 5
    assert verified(run, capsys, 0)["model.ckpt-5"] == (
        True, "by TensorFlow's own checksums; it has no manifest"
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"format": 1}', b"[" * 100000])
def test_a_broken_manifest_is_damage_to_a_run_that_continues_and_none_to_others(run, path, content, caplog):
    """It says where in the data the run stands; the weights can be used without."""
    with open(path + manifest.ENDING, "wb") as file:
        file.write(content)
    with pytest.raises(RunError, match=r"none of the 1 checkpoints.*manifest\.json.*delete it to go on"):
        saver.find_resumable(run)
    assert load_model(run).step == 5
    assert "counts as one without" in caplog.text
    assert not verify(path)[0].whole
    os.remove(path + manifest.ENDING)
    assert saver.find_resumable(run)[:2] == (path, 5)


@pytest.mark.parametrize(
    "changes",
    [{"files": 3}, {"files": {".index": 3}}, {"files": {"/../x": {"bytes": 0, "sha256": ""}}}, {"step": "5"},
     {"class_names": [1]}, {"data": {"skipped_images": "1"}}],
)  # fmt: skip
def test_a_manifest_written_anew_in_another_form_is_a_broken_one(run, path, changes):
    content = {**manifest.read(path), **changes}
    with open(path + manifest.ENDING, "w", encoding="utf-8") as file:
        json.dump({**content, manifest._CHECKSUM: manifest._of_content(content)}, file)
    with pytest.raises(RunError, match=r"manifest\.json lacks .*delete it to go on"):
        saver.find_resumable(run)
    assert manifest.readable(path) is None
    assert "holds them in another form" in verify(path)[0].note


def test_a_changed_character_of_the_configuration_is_noticed(path):
    with open(path + manifest.ENDING, encoding="utf-8") as file:
        text = file.read()
    with open(path + manifest.ENDING, "w", encoding="utf-8") as file:
        file.write(text.replace('"num_classes": 5', '"num_classes": 6'))
    with pytest.raises(manifest.BrokenManifest, match="damaged, or was edited"):
        manifest.read(path)


def test_a_copied_checkpoint_is_complete_in_itself(run, path, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for ending in ENDINGS:
        shutil.copyfile(path + ending, str(elsewhere / f"mine{ending}"))
    for given in (elsewhere, elsewhere / "mine", elsewhere / "mine.index"):
        assert run_folder.stored_config(str(given)).model.num_classes == 5
    model = load_model(str(elsewhere))
    assert (model.step, model.output_shape[1]) == (5, 5)


def test_the_manifest_of_a_named_checkpoint_takes_precedence_over_a_strange_run_json(path, tmp_path):
    elsewhere = write_run(tmp_path / "other", step=9, num_classes=7)
    for ending in ENDINGS:
        shutil.copyfile(path + ending, os.path.join(elsewhere, f"model.ckpt-5{ending}"))
    assert run_folder.stored_config(os.path.join(elsewhere, "model.ckpt-5")).model.num_classes == 5
    assert run_folder.stored_config(elsewhere).model.num_classes == 7


def test_a_renamed_checkpoint_is_said_to_be_so(run, path, capsys):
    for ending in ENDINGS:
        os.rename(path + ending, os.path.join(run, f"model.ckpt-50{ending}"))
    with pytest.raises(UsageError, match=r"named as that of step 50, but it was saved at step 5.*renamed"):
        saver.find_resumable(run)
    assert verified(run, capsys, 1)["model.ckpt-50"] == (False, "it is of step 5: somebody renamed it")


def test_verify_names_what_is_not_whole_and_looks_into_best(run, path, tmp_path, capsys):
    shutil.copytree(run, os.path.join(str(tmp_path), "best"))
    shutil.move(os.path.join(str(tmp_path), "best"), run)
    everything = {"run.json", "model.ckpt-5", "best/run.json", "best/model.ckpt-5"}
    found = verified(run, capsys, 0)
    assert set(found) == everything
    assert all(whole for whole, _ in found.values())
    change_byte(os.path.join(run, "best", "model.ckpt-5.data-00000-of-00001"))
    with open(os.path.join(run, "run.json"), "w") as file:
        file.write("{")
    found = verified(run, capsys, 1)
    assert {name for name, (whole, _) in found.items() if not whole} == {"run.json", "best/model.ckpt-5"}
    assert "its checksum has changed" in found["best/model.ckpt-5"][1]
    os.remove(path + ".data-00000-of-00001")
    assert verified(run, capsys, 1)["model.ckpt-5"] == (False, f"{path}.data-00000-of-00001 does not exist")
    assert main.run_command(["verify", os.path.join(run, "nothing")]) == 2
    assert main.run_command(["verify", path + ".index"]) == 2


def test_what_is_set_aside_takes_its_manifest_along(run, path):
    files.set_aside(path)
    assert not os.path.exists(path + manifest.ENDING)
    assert os.path.exists(os.path.join(run, f"{files.SET_ASIDE}model.ckpt-5{manifest.ENDING}"))
    assert saver.newest(run) is None
