"""Settings: the documented defaults, one rule for every value, and a lossless run.json."""

import dataclasses
import json

import pytest

from densenet_keras.errors import UsageError
from densenet_keras.settings import config as configuration
from densenet_keras.settings.config import (
    ALL,
    EVALUATE,
    FINETUNE,
    GROUPS,
    TRAIN,
    Config,
    fields,
    group_of,
    settings,
)
from densenet_keras.settings.rules import validate

# The parameter table of the original's README. lr is the exception: its text, its code and all its
# scripts say 0.1.
README_DEFAULTS = {
    "rank_size": 1,
    "mode": "train_and_evaluate",
    "max_train_steps": 150,
    "max_epochs": None,
    "epochs_between_evals": 5,
    "data_dir": "path/data",
    "eval_dir": "path/eval",
    "dtype": "tf.float32",
    "use_nesterov": True,
    "label_smoothing": 0.1,
    "weight_decay": 0.0001,
    "batch_size": 32,
    "lr": 0.1,
    "T_max": 150,
    "momentum": 0.9,
    "display_every": 1,
    "log_name": "densenet121.log",
    "log_dir": "./model_1p",
    "restore_path": "",
    "restore_exclude": ("linear/",),
}


@pytest.mark.parametrize(("name", "default"), README_DEFAULTS.items())
def test_train_has_every_documented_flag_with_its_default(name, default):
    assert TRAIN in fields()[name].metadata["commands"]
    assert Config.defaults(TRAIN).get(name) == default


@pytest.mark.parametrize("name", ["lr", "max_train_steps", "log_name", "restore_path", "restore_exclude"])
def test_help_says_where_readme_and_code_of_the_original_differ(name):
    text = fields()[name].metadata["help"]
    assert "README" in text
    assert "code" in text


def test_no_name_stands_in_two_groups():
    names = [field.name for kind in GROUPS.values() for field in dataclasses.fields(kind)]
    assert len(names) == len(set(names)) == len(settings())


@pytest.mark.parametrize("command", ALL)
def test_defaults_are_valid(command):
    validate(Config.defaults(command).replace(restore_path="model.ckpt-1"))


def test_fine_tuning_and_evaluation_do_not_write_into_the_training_run_by_default():
    folders = {Config.defaults(command).run.log_dir for command in ALL}
    assert len(folders) == len(ALL)


# run.json


@pytest.mark.parametrize("command", ALL)
def test_json_round_trip(command):
    config = Config.defaults(command).replace(
        lr=0.25, max_epochs=3, restore_exclude=("a/", "b/"), npu_option=("k=v",), use_nesterov=False
    )
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_settings_missing_in_json_take_the_defaults_of_the_command():
    assert Config.from_json({"command": FINETUNE}) == Config.defaults(FINETUNE)


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ({"data": {"batch_sise": 3}}, "data.batch_sise is not a setting"),
        ({"data": {"lr": 0.1}}, "data.lr is not a setting"),
        ({"speed": {}}, "speed is not a group"),
        ({"data": 3}, "data: must be one JSON object"),
        ({"command": "trian"}, "command 'trian': must be one of train"),
        ({"data": {"batch_size": "32"}}, 'data.batch_size "32": must be a whole number'),
        ({"data": {"batch_size": True}}, "data.batch_size true: must be a whole number"),
        ({"data": {"batch_size": None}}, "data.batch_size null: must be a whole number"),
        ({"run": {"max_epochs": "3"}}, "must be a whole number or null"),
        ({"optimizer": {"lr": "fast"}}, "must be a number"),
        ({"optimizer": {"use_nesterov": 1}}, "must be true or false"),
        ({"run": {"log_dir": 1}}, "must be a string"),
        ({"run": {"restore_exclude": "linear/"}}, "must be a list of strings"),
        ({"run": {"restore_exclude": [1]}}, "must be a string"),
    ],
)
def test_json_that_is_no_configuration(values, fragment):
    with pytest.raises(UsageError) as caught:
        Config.from_json(values)
    assert fragment in str(caught.value)


def test_whole_numbers_are_numbers_in_json():
    lr = Config.from_json({"optimizer": {"lr": 1}}).optimizer.lr
    assert lr == 1.0
    assert type(lr) is float


@pytest.mark.parametrize(("text", "fragment"), [("[1]", "one JSON object"), ("{", "is not JSON")])
def test_files_that_are_no_run_json(tmp_path, text, fragment):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        configuration.load(str(path))
    assert fragment in str(caught.value)
    assert str(path) in str(caught.value)


def test_replace_knows_every_setting_and_no_other():
    config = Config().replace(batch_size=8, seed=3, lr=0.2, command=EVALUATE)
    assert (config.data.batch_size, config.data.seed, config.optimizer.lr) == (8, 3, 0.2)
    assert config.command == EVALUATE
    assert group_of("lr") == "optimizer"
    with pytest.raises(KeyError):
        Config().replace(learning_rate=0.2)


# Rules


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"batch_size": 0}, "--batch_size 0: must be at least 1"),
        ({"rank_size": 0}, "--rank_size 0: must be at least 1"),
        ({"T_max": 0}, "--T_max 0: must be at least 1"),
        ({"momentum": 1.0}, "--momentum 1.0: must be at least 0 and less than 1"),
        ({"momentum": -0.1}, "--momentum -0.1"),
        ({"label_smoothing": 1.0}, "--label_smoothing 1.0"),
        ({"lr": 0.0}, "--lr 0.0: must be greater than 0"),
        ({"lr": float("inf")}, "--lr inf: must be a finite number"),
        ({"weight_decay": float("nan")}, "--weight_decay nan: must be a finite number"),
        ({"weight_decay": -1e-4}, "--weight_decay -0.0001: must be at least 0"),
        ({"iterations_per_loop": -1}, "--iterations_per_loop -1"),
        ({"display_every": 0}, "--display_every 0"),
        ({"save_checkpoints_steps": -1}, "--save_checkpoints_steps -1"),
        ({"epochs_between_evals": 0}, "--epochs_between_evals 0"),
        ({"max_epochs": 0}, "--max_epochs 0"),
        ({"max_train_steps": -1}, "--max_train_steps -1"),
        ({"min_crop_area": 0.0}, "--min_crop_area 0.0: must be greater than 0 and at most 1"),
        ({"min_crop_area": 1.1}, "--min_crop_area 1.1"),
        ({"drop_rate": 1.0}, "--drop_rate 1.0"),
        ({"image_size": 31}, "--image_size 31: must be at least 32"),
        ({"num_classes": 1}, "--num_classes 1: must be at least 2"),
        ({"seed": -1}, "--seed -1"),
        ({"bn_epsilon": 0.0}, "--bn_epsilon 0.0"),
        ({"warmup_epochs": 6.0, "T_max": 5}, "--warmup_epochs 6.0: must be at most --T_max (5)"),
        ({"model": "densenet"}, "--model densenet: must be one of densenet121, densenet161"),
        ({"log_dir": ""}, "--log_dir '': must not be empty"),
        ({"log_name": "logs/train.log"}, "--log_name logs/train.log: must be a file name without folders"),
        ({"log_name": ".."}, "--log_name ..: must be a file name"),
        ({"log_name": ""}, "--log_name '': must be a file name"),
        ({"log_name": "run.json"}, "a run folder needs itself"),
        ({"callbacks": "mine"}, "--callbacks mine: must be MODULE:FUNCTION"),
        ({"restore_exclude": ("linear/", "['conv']")}, "--restore_exclude ['conv']: must be the beginning"),
        ({"model": "densenet_cifar", "stem": "original"}, "--stem original: densenet_cifar starts with"),
        ({"json": "table.json"}, "only in evaluate.py and --mode evaluate"),
        ({"command": FINETUNE}, "--restore is missing"),
        ({"command": FINETUNE, "restore_path": "c", "mode": "evaluate"}, "use evaluate.py"),
    ],
)
def test_impossible_values(settings, fragment):
    with pytest.raises(UsageError) as caught:
        validate(Config().replace(**settings))
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.0},
        {"label_smoothing": 0.0},
        {"weight_decay": 0.0},
        {"min_crop_area": 1.0},
        {"restore_exclude": ()},
        {"callbacks": "package.module:make"},
        {"log_name": "a b.log"},
        {"warmup_epochs": 150.0},
        {"command": EVALUATE, "mode": EVALUATE, "json": "table.json"},
    ],
)
def test_limits_that_are_allowed(settings):
    validate(Config().replace(**settings))
