"""Settings that run, and what is said of them."""

import dataclasses

import pytest

from densenet_keras import backends, schedule
from densenet_keras.commands import advice, preflight
from densenet_keras.settings.config import FINETUNE, Config


def said(first_step=0, images=2560, monkeypatch=None, **settings):
    config = Config().replace(**{"backend": "tensorflow", "batch_size": 256, "mode": "train", **settings})
    return advice.notes(config, schedule.plan(config, images, 0), first_step)


def test_a_schedule_that_ends_with_the_training_needs_no_words():
    assert said(max_epochs=150) == []
    assert said(max_epochs=90, T_max=90) == []
    assert said(max_train_steps=150) == [], "a trial"


def test_a_training_that_ends_before_its_schedule_is_told_the_flag():
    (note,) = said(max_epochs=75)
    assert "after 75 epochs at a learning rate of 0.051" in note
    assert note.endswith("give --T_max 75")


@pytest.mark.parametrize("length", [{"max_epochs": 20}, {"max_train_steps": 195}])
def test_so_is_one_that_goes_on_at_rate_zero(length):
    (note,) = said(T_max=10, **length)
    assert "from epoch 10 on" in note
    assert note.endswith("give --T_max 20")


def test_so_is_one_that_continues_behind_its_schedule():
    (note,) = said(T_max=10, max_epochs=20, first_step=100)
    assert note.startswith("step 100 is behind --T_max 10")


@pytest.mark.parametrize(("lr", "batch_size"), [(0.1, 128), (0.1, 512), (0.4, 1024)])
def test_a_rate_near_the_one_of_its_batch_needs_no_words(lr, batch_size):
    assert said(lr=lr, batch_size=batch_size) == []


def test_a_rate_for_another_batch_is_told_the_one_that_fits():
    (note,) = said(lr=0.1, batch_size=32)
    assert "a global batch of 32 images" in note
    assert "--lr 0.0125 to this one" in note
    assert said(lr=0.1, batch_size=32, command=FINETUNE) == []


def test_ranks_that_share_too_few_cores_are_said(monkeypatch):
    monkeypatch.setattr(advice, "available_cores", lambda: 2)
    assert said(rank_size=2, batch_size=128) == []
    (note,) = said(rank_size=4, batch_size=64)
    assert note.startswith("4 ranks share 2 cores")
    assert said(rank_size=4, batch_size=64, dry_run=True) == [], "a plan may be another machine's"


def test_the_reason_why_a_better_backend_is_not_used_is_said(monkeypatch):
    monkeypatch.setattr(backends, "why_not", lambda name: {"better": "its library is not installed"})
    wanted = "--backend better cannot be used: its library is not installed"
    assert advice.choice_of_backend(Config().replace(backend="tensorflow")) == wanted


def test_a_flag_that_does_nothing_beside_another_is_said():
    both = "--max_train_steps 7 is not used: --max_epochs 150 takes precedence"
    assert said(max_epochs=150, max_train_steps=7) == [both]
    assert said(max_epochs=150, patience_evals=3, keep_best=True) == [
        "--patience_evals has no effect: --mode train evaluates nothing",
        "--keep_best has no effect: --mode train evaluates nothing",
    ]
    assert said(max_epochs=150, patience_evals=3, keep_best=True, mode="train_and_evaluate") == []
    assert said(max_epochs=150, keep_best=True, command=FINETUNE) == [], "its default"


def test_every_setting_that_shapes_a_training_is_compared_when_it_continues():
    shapes_nothing = {"data_threads", "bad_record_share", "strict"}
    compared = {*preflight.CONTINUED, *preflight.REPORTED, *shapes_nothing}
    config = Config()
    for group in (config.model, config.data, config.optimizer, config.finetune):
        assert {field.name for field in dataclasses.fields(group)} <= compared
