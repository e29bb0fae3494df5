"""What each command takes and is for: its settings, purpose and example."""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple

from densenet_keras.settings.config import EVALUATE, FINETUNE, TRAIN, Config, settings
from densenet_keras.settings.setting import Setting, settings_of

SCRIPTS = {TRAIN: "train_keras.py", EVALUATE: "evaluate.py", FINETUNE: "finetune.py"}
CONFIG = "config"
_PURPOSE = {
    TRAIN: "Trains DenseNet on TFRecords, or evaluates its checkpoints (--mode evaluate). The same command "
    "again continues from the newest checkpoint in --log_dir.",
    EVALUATE: "Evaluates one checkpoint or a folder of them. The network's settings are read from the "
    "run.json beside the checkpoints.",
    FINETUNE: "Trains from the weights of a checkpoint (--restore, required), all but the classifier. The "
    "network's settings are read from the run.json beside the checkpoint.",
}
_EXAMPLE = {
    TRAIN: "--data_dir /data/imagenet --log_dir run --rank_size 8 --max_epochs 150 --mode train_and_evaluate",
    EVALUATE: "--eval_dir run --data_dir /data/imagenet",
    FINETUNE: "--restore run --data_dir my_data --log_dir tuned --max_epochs 20",
}
_COMMON = {
    TRAIN: ("data_dir", "batch_size", "model", "num_classes", "lr", "max_epochs", "log_dir", "rank_size"),
    EVALUATE: (
        "data_dir", "batch_size", "label_offset", "log_dir", "eval_dir", "json", "rank_size", "backend"
    ),
    FINETUNE: (
        "data_dir", "batch_size", "num_classes", "lr", "max_epochs", "log_dir", "restore_path", "rank_size"
    ),
}  # fmt: skip


class Program(NamedTuple):
    """A command line.

    Attributes:
        call: what follows `python`.
        purpose: what it is for, a few sentences.
        example: one that works, without `python` and `call`.
        settings: by name, in the order of help.
        common: flags that --help explains; --help_all explains the others too. Empty: all.
        takes_config: whether a run.json can give the settings (--config).
    """

    call: str
    purpose: str
    example: str
    settings: Dict[str, Setting]
    common: Tuple[str, ...] = ()
    takes_config: bool = False


class Tool(NamedTuple):
    """A command of `python -m densenet_keras` that neither trains nor evaluates.

    Its module has `Settings`, a frozen dataclass of `flag`s whose docstring says what the command is for,
    `EXAMPLE`, arguments that work, and `run`, from settings to exit code. It raises UsageError and RunError
    like everything else.
    """

    module: str  # in densenet_keras, imported when it is asked for
    purpose: str


def program(command: str) -> Program:
    """The command line of train, evaluate or finetune."""
    defaults = Config.defaults(command)
    taken = {
        name: setting._replace(default=defaults.get(name))
        for name, setting in settings().items()
        if command in setting.metadata["commands"]
    }
    return Program(
        SCRIPTS[command], _PURPOSE[command], _EXAMPLE[command], taken, _COMMON[command], takes_config=True
    )


def tool(name: str, record: type, example: str) -> Program:
    """The command line of `python -m densenet_keras NAME`, whose settings are the fields of `record`.

    The first line of the record's docstring is the title of its flags, the rest says what it is for.
    """
    _, _, purpose = (record.__doc__ or "").partition("\n\n")
    return Program(f"-m densenet_keras {name}", " ".join(purpose.split()), example, settings_of(record))
