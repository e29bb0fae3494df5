"""What to say of a flag that does not exist: the one that was meant, or another way to the same end."""

from __future__ import annotations

import difflib
import re
from typing import Dict

from densenet_keras.errors import UsageError
from densenet_keras.settings.config import fields
from densenet_keras.settings.programs import CONFIG, SCRIPTS, Program

# What other trainers call it, where the spelling alone would suggest another flag or none.
_SYNONYMS = {
    "learning_rate": "lr",
    "epochs": "max_epochs",
    "steps": "max_train_steps",
    "wd": "weight_decay",
    "arch": "model",
    "class_num": "num_classes",
    "model_dir": "log_dir",
    "output_dir": "log_dir",
    "checkpoint": "restore_path",
    "pretrained": "restore_path",
    "gpus": "rank_size",
    "npus": "rank_size",
    "nesterov": "use_nesterov",
}
# What other trainers have a flag for, and this one does in another way.
_ADVICE = {
    "resume": "the same command again continues the run in --log_dir; to start from other weights, give "
    "finetune.py --restore CKPT",
    "gpu": "a GPU that TensorFlow sees is used by itself, one for each rank: --rank_size N",
    "device": "--backend chooses between CPU or GPU (tensorflow) and NPU (ascend); --rank_size N takes N of "
    "them",
    "amp": "on an NPU mixed precision is the default, see --precision_mode; on a CPU there is none",
    "fp16": "on an NPU mixed precision is the default, see --precision_mode; on a CPU there is none",
    "include_top": "finetune.py leaves out the classifier of the checkpoint and makes a new one for "
    "--num_classes",
    "weights": "finetune.py --restore CKPT starts from a checkpoint; no weights are downloaded",
    "workers": "--rank_size is the number of ranks, --data_threads that of decoders",
    "num_workers": "--data_threads is the number of parallel decoders",
}


def spellings(described: Program) -> Dict[str, str]:
    """Every spelling of a flag with its setting's name."""
    names = {
        spelling: setting.name
        for setting in described.settings.values()
        if not setting.metadata["positional"]
        for spelling in (f"--{setting.name}", *setting.metadata["aliases"])
    }
    return {**names, f"--{CONFIG}": CONFIG} if described.takes_config else names


def refuse_unknown(described: Program, flag: str) -> None:
    """Raises UsageError if `flag` is not one of `described`, with the one that was meant, if any."""
    known = spellings(described)
    if flag in known:
        return
    word = flag.lstrip("-").lower().replace("-", "_")
    if described.takes_config:
        _check_other_commands(described, flag)
        if word in _ADVICE:
            raise UsageError(f"unknown flag {flag}: {_ADVICE[word]}")
    by_word = {spelling[2:].lower(): spelling for spelling in known}
    negated = by_word.get(re.sub("^no_?", "", word))
    if word.startswith("no") and negated and described.settings[known[negated]].kind.base is bool:
        raise UsageError(f"unknown flag {flag}; write {negated} false")
    wanted = _SYNONYMS.get(word)
    close = difflib.get_close_matches(word, by_word, n=1)
    if wanted in by_word:
        close = [wanted]
    if close:
        raise UsageError(f"unknown flag {flag}; did you mean {by_word[close[0]]}?")
    raise UsageError(f"unknown flag {flag}; python {described.call} --help lists all")


def _check_other_commands(described: Program, flag: str) -> None:
    names = {s: n for n, f in fields().items() for s in (f"--{n}", *f.metadata["aliases"])}
    if flag in names:
        owners = fields()[names[flag]].metadata["commands"]
        scripts = " and ".join(SCRIPTS[owner] for owner in owners)
        raise UsageError(f"{flag} is a flag of {scripts}, not of {described.call}; leave it out")
