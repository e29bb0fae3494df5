"""The group of settings that says how long, how often and where to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from densenet_keras.settings.setting import (
    EVALUATE,
    FINETUNE,
    NOT_EMPTY,
    POSITIVE,
    TRAIN,
    TRAINING,
    at_least,
    flag,
    matches,
)

MODULE_FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


@dataclass(frozen=True)
class RunConfig:
    """Run: how long, how often, where to."""

    mode: str = flag(
        "train_and_evaluate",
        "train, evaluate the checkpoints of eval_dir, or train and evaluate in turn",
        choices=("train", "evaluate", "train_and_evaluate"),
        commands=TRAINING,
    )
    max_train_steps: int = flag(
        150,
        "steps to train when max_epochs is not given (README: 150; code: 100; 150 here, the "
        "documented value)",
        commands=TRAINING,
        rule=at_least(1),
    )
    max_epochs: Optional[int] = flag(
        None,
        "epochs to train; takes precedence over max_train_steps",
        commands=TRAINING,
        rule=at_least(1),
        command_defaults={FINETUNE: 30},
    )
    epochs_between_evals: int = flag(
        5,
        "epochs from one evaluation to the next in mode train_and_evaluate; the end of training is "
        "always evaluated (the original left out a last, shorter round)",
        commands=TRAINING,
        rule=at_least(1),
        command_defaults={FINETUNE: 1},
    )
    iterations_per_loop: Optional[int] = flag(
        None,
        "training steps in one session.run; on an NPU they run on the device without the host. 0: chosen, "
        "up to 1000, so that loops fit between saves, evaluations and ends of epochs; default: 0 on NPUs, "
        "else 10, or what the run in log_dir used",
        commands=TRAINING,
        rule=at_least(0),
    )
    display_every: int = flag(
        1,
        "steps from one log line to the next; a session.run logs once at most, so fewer than "
        "iterations_per_loop means once per session.run",
        commands=TRAINING,
        rule=at_least(1),
    )
    save_checkpoints_steps: Optional[int] = flag(
        None,
        "steps from one checkpoint to the next; what is evaluated and the end are saved too. 0: once an "
        "epoch; default: 0 on NPUs, else 5000, or what the run in log_dir used",
        commands=TRAINING,
        rule=at_least(0),
    )
    on_nonfinite: str = flag(
        "stop",
        "what a run does when a loss or a gradient is no longer finite: stop, or rewind: go back to the last "
        "checkpoint and leave out the batches that followed it",
        choices=("stop", "rewind"),
        commands=TRAINING,
    )
    max_rewinds: int = flag(
        3, "how often a run goes back before it stops", commands=TRAINING, rule=at_least(1)
    )
    gradient_norm_limit: Optional[float] = flag(
        None,
        "a step whose gradient is longer counts as not finite; for devices that saturate instead; nothing is "
        "clipped; default: none",
        commands=TRAINING,
        rule=POSITIVE,
    )
    keep_checkpoint_max: int = flag(
        5, "newest checkpoints that are kept", commands=TRAINING, rule=at_least(1)
    )
    keep_best: bool = flag(
        False,
        "keep the checkpoint with the best top-1 of all evaluations in the folder best of log_dir, "
        "which evaluate, finetune, predict and export take",
        commands=TRAINING,
        command_defaults={FINETUNE: True},
    )
    patience_evals: Optional[int] = flag(
        None,
        "end training after so many evaluations in a row without a better top-1; default: never",
        commands=TRAINING,
        rule=at_least(1),
    )
    log_dir: str = flag(
        "./model_1p",
        "run folder: checkpoints, logs, run.json; a run that is there already is continued",
        rule=NOT_EMPTY,
        metavar="DIR",
        command_defaults={EVALUATE: "./model_evaluation", FINETUNE: "./model_finetune"},
    )
    log_name: str = flag(
        "densenet121.log",
        "name of the log file in log_dir (README: densenet121.log; code: densenet121_training.log; the "
        "documented name here)",
        rule=matches(
            r"(?!\.\.?$)[^/\\\0]+",
            "must be a file name without folders, such as train.log; --log_dir names the folder",
        ),
        metavar="NAME",
    )
    eval_dir: str = flag(
        "path/eval",
        "checkpoint, or folder of checkpoints (then each is evaluated), in evaluate.py and mode evaluate",
        rule=NOT_EMPTY,
        metavar="PATH",
    )
    json: str = flag(
        "", "file to write the evaluation table to, as JSON", metavar="FILE", commands=(TRAIN, EVALUATE)
    )
    restore_path: str = flag(
        "",
        "checkpoint, folder whose newest is taken, or file of weights of another program, to start from when "
        "log_dir holds none (README: /code/ckpt/model.ckpt-100; code: none; none here)",
        aliases=("--restore",),
        metavar="CKPT",
        commands=TRAINING,
    )
    restore_exclude: Tuple[str, ...] = flag(
        ("linear/",),
        "prefixes of variables that restore_path does not fill, separated by blanks or commas; linear/ "
        "is the classifier (README: linear/; one version of the code also global_step, which is never "
        "taken from restore_path here)",
        metavar="PREFIX",
        commands=TRAINING,
        rule=matches(r"[A-Za-z0-9_.][\w./\\-]*", "must be the beginning of a variable name, such as linear/"),
    )
    callbacks: str = flag(
        "",
        "function that returns a list of your own Keras callbacks; the module is looked up from the "
        "current folder",
        rule=matches(f"({MODULE_FUNCTION})?", "must be MODULE:FUNCTION, such as my_callbacks:make"),
        metavar="MODULE:FUNCTION",
        commands=TRAINING,
    )
