"""The log that programs read."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Dict, List

import tensorflow as tf

from densenet_keras import files
from densenet_keras.schedule import StepLogs
from densenet_keras.training.callbacks.clock import local_time
from densenet_keras.training.evaluation import EvalResult

FILE_NAME = "metrics.jsonl"
_to_json = json.JSONEncoder(allow_nan=False).encode


class Metrics(tf.keras.callbacks.Callback):
    """Appends to log_dir/metrics.jsonl: one JSON object for each log line and each evaluation.

    What is not a number or not known is null. `time` is the local time, with its distance from UTC.
    """

    def __init__(self, log_dir: str, first_step: int) -> None:
        """Drops lines beyond `first_step`: training repeats them, having started from there again."""
        super().__init__()
        os.makedirs(log_dir, exist_ok=True)
        self._path = os.path.join(log_dir, FILE_NAME)
        drop_after(self._path, first_step)
        self._file = files.GrowingFile(self._path)

    def on_rewind(self, step: int, words: str) -> None:
        """Drops the lines beyond `step`."""
        self._file.close()
        drop_after(self._path, step)
        self._file = files.GrowingFile(self._path)

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        if "images_per_second" not in logs:
            return
        self._write({"step": logs.progress.step, "epoch": logs.progress.epoch, **logs.scalars()})

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """A line for one evaluation; top1 and top5 in percent."""
        self._write({"step": step, "epoch": epoch, **result._asdict()})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, values: Dict[str, Any]) -> None:
        line = {name: _finite(value) for name, value in values.items()}
        line["time"] = local_time("%Y-%m-%dT%H:%M:%S%z")
        self._file.append(_to_json(line) + "\n")


def holds_evaluation(log_dir: str, step: int) -> bool:
    """Whether the metrics.jsonl in `log_dir` has a line of the evaluation of `step`."""
    path = os.path.join(log_dir, FILE_NAME)
    if not os.path.exists(path):
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return any('"top1"' in line and _step(line) == step for line in file)


def top1_by_step(log_dir: str) -> Dict[int, float]:
    """Top-1 in percent of every evaluation in the metrics.jsonl of `log_dir`."""
    found = {}
    path = os.path.join(log_dir, FILE_NAME)
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            whole = [line for line in file if '"top1"' in line and math.isfinite(_step(line))]
        for values in map(json.loads, whole):
            if isinstance(values.get("top1"), float):
                found[int(values["step"])] = values["top1"]
    return found


def drop_after(path: str, step: int) -> None:
    """Removes the lines of later steps than `step`, and what a kill left of a line."""
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    kept = [line for line in lines if _step(line) <= step]
    if kept == lines:
        return
    with files.whole_file(path) as file:
        file.writelines(kept)


def _step(line: str) -> float:
    """The step of a line; infinite if it is not a whole one."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: str) -> List[Dict[str, Any]]:
    """The objects of a metrics.jsonl."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
