"""What `confirm` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from densenet_keras.settings.device import BACKENDS
from densenet_keras.settings.groups import MODELS
from densenet_keras.settings.setting import NOT_EMPTY, Rule, at_least, flag, matches

_NUMBER = matches(r"[1-9]\d*", "must be whole numbers, such as 32,64,128,256")


@dataclass(frozen=True)
class ConfirmSettings:
    """Confirm: what must hold on a device.

    Tries on this machine what no test without a device can tell: short trainings and evaluations, compared
    with each other. Prints a table and leaves confirmation.json in --log_dir, one file with all that was
    measured, which can be sent to the authors. The same command again goes on with what was not done.
    """

    data_dir: str = flag("", "data set, of which a small part is read", metavar="DIR")
    log_dir: str = flag(
        "./confirmation", "folder for confirmation.json and the runs behind it", rule=NOT_EMPTY, metavar="DIR"
    )
    rank_size: int = flag(1, "number of ranks, each with one device", rule=at_least(1))
    backend: str = flag(
        "auto", "what to confirm; auto takes what training would take", choices=("auto", *BACKENDS)
    )
    only: Tuple[str, ...] = flag((), "lines to try, by name; default: all", metavar="LINE")
    model: str = flag(MODELS[0], "which network", choices=MODELS)
    batch_size: int = flag(32, "images per rank and step, where speed is not measured", rule=at_least(1))
    batch_sizes: Tuple[str, ...] = flag(
        ("32", "64", "128", "256"), "batch sizes whose speed is measured", metavar="N,N", rule=_NUMBER
    )
    speed_steps: int = flag(200, "steps of a run whose speed is measured", rule=at_least(10))
    run_flag: Tuple[str, ...] = flag(
        (),
        "flag that every run gets, such as num_classes=100; may be repeated",
        metavar="NAME=VALUE",
        repeated=True,
        rule=Rule(lambda text: "=" in text[1:], "must be NAME=VALUE, such as num_classes=100"),
    )
    max_minutes: int = flag(
        55, "after so long no further line is begun; the same command again goes on", rule=at_least(1)
    )
