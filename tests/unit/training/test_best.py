"""The best of a run."""

import json

import pytest

from densenet_keras.training.callbacks.best import FOLDER, KeepBest
from densenet_keras.training.evaluation import EvalResult
from tests.support.toy_training import BareModel


def result(top1):
    return EvalResult(top1, 100.0, 1.0, 10, 1.0)


@pytest.fixture
def run(tmp_path):
    """run(top-1 of each evaluation) -> (callback, lines said); each has its checkpoint of a few bytes."""

    def make(values, first_step=0, keeps=True, patience=None):
        said = []
        best = KeepBest(str(tmp_path), first_step, keeps, patience, said.append)
        best.set_model(BareModel())
        best.model.stop_training = False
        for number, top1 in enumerate(values, start=1):
            step = first_step + 10 * number
            for ending in (".index", ".data-00000-of-00001"):
                (tmp_path / f"model.ckpt-{step}{ending}").write_text(str(step))
            with open(str(tmp_path / "metrics.jsonl"), "a") as file:
                file.write(json.dumps({"step": step, "top1": top1}) + "\n")
            best.evaluation(step, 1.0, result(top1), "")
        return best, said

    return make


def kept(tmp_path):
    return sorted(p.name for p in (tmp_path / FOLDER).glob("model.ckpt-*.index"))


def test_the_best_is_kept_and_no_other(run, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    run([50.0, 70.0, 60.0, 70.0])
    assert kept(tmp_path) == ["model.ckpt-20.index"]
    assert (tmp_path / FOLDER / "model.ckpt-20.data-00000-of-00001").read_text() == "20"
    assert (tmp_path / FOLDER / "run.json").exists()


def test_a_continued_run_knows_what_was_best(run, tmp_path):
    run([50.0, 70.0])
    run([60.0], first_step=20)
    assert kept(tmp_path) == ["model.ckpt-20.index"]
    run([80.0], first_step=30)
    assert kept(tmp_path) == ["model.ckpt-40.index"]


def test_training_that_no_longer_improves_ends_and_says_so(run):
    best, said = run([50.0, 49.0], patience=2)
    assert not best.model.stop_training
    best, said = run([50.0, 49.0, 50.0], patience=2)
    assert best.model.stop_training
    assert "top-1 has not passed 50.000 % in 2 evaluations" in said[0]


def test_nothing_is_kept_unless_asked(run, tmp_path):
    run([50.0], keeps=False)
    assert not (tmp_path / FOLDER).exists()
