"""`python -m densenet_keras predict`: what pictures show."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from densenet_keras import files
from densenet_keras.errors import EXIT_DONE, EXIT_FAILED, UsageError
from densenet_keras.launch import launcher
from densenet_keras.prediction import answers, pictures
from densenet_keras.prediction.answers import Answer
from densenet_keras.prediction.source import network_config
from densenet_keras.rank import Rank
from densenet_keras.settings.config import Config
from densenet_keras.settings.device import BACKENDS, DeviceConfig
from densenet_keras.settings.groups import DataConfig
from densenet_keras.settings.setting import at_least, flag

EXAMPLE = "--restore model_flowers holiday.jpg more_pictures/"
REQUEST = "pictures.json"  # in the folder that ranks share: what to answer
QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class Settings:
    """Prediction: the network, the pictures, the answers.

    Says what pictures show, with the network of a run. Folders are searched for pictures. What cannot be
    read is named, the others are answered, and the exit code is 1 then.
    """

    pictures: Tuple[str, ...] = flag(
        (),
        "files, folders (searched with all below them), and - for a list of paths on standard input",
        positional=True,
        metavar="PICTURE",
    )
    restore: str = flag("", "run folder, its folder best, or a checkpoint", metavar="RUN")
    top_k: int = flag(5, "classes to name for each picture, the most probable first", rule=at_least(1))
    csv: bool = flag(False, "answer as CSV instead of a table for people")
    json: bool = flag(
        False,
        "answer as JSON: a list of objects with path, and either top (class, label, probability) or error",
    )
    batch_size: int = flag(
        DataConfig.batch_size, "pictures that go through the network together", rule=at_least(1)
    )
    rank_size: int = flag(DeviceConfig.rank_size, "ranks that share the pictures", rule=at_least(1))
    backend: str = flag(
        DeviceConfig.backend,
        "tensorflow (CPU or GPU) or ascend (NPU); auto takes ascend where it can",
        choices=("auto", *BACKENDS),
    )
    data_threads: Optional[int] = flag(
        None, "parallel decoders of one rank; default: its share of the cores", rule=at_least(1)
    )


def run(settings: Settings) -> int:
    """Answers on stdout; returns the exit code."""
    from densenet_keras.commands import main, resolution

    if not settings.restore:
        raise UsageError("--restore is missing: the run folder or checkpoint of the network that answers")
    config = _config(settings)
    paths = pictures.find(settings.pictures, sys.stdin)
    code = EXIT_DONE
    folder = tempfile.mkdtemp(prefix="densenet_keras_predict_")
    try:
        files.write_json(
            os.path.join(folder, REQUEST),
            {"paths": paths, "restore": os.path.abspath(settings.restore), "top_k": settings.top_k},
        )
        config = resolution.resolve(config.replace(log_dir=folder), os.environ)
        code = launcher.launch(config, command=main.RANK_COMMAND)
        if code != EXIT_DONE:
            return code
        found = _gathered(folder, len(paths), config.device.rank_size)
    finally:
        if code != EXIT_FAILED:  # else the logs stay that the launcher has named
            shutil.rmtree(folder, ignore_errors=True)
    _write(found, settings)
    return EXIT_FAILED if any(answer.error for answer in found) else EXIT_DONE


def _config(settings: Settings) -> Config:
    return network_config(settings.restore).replace(
        batch_size=settings.batch_size,
        rank_size=settings.rank_size,
        data_threads=settings.data_threads,
        backend=settings.backend,
    )


def answer_share(config: Config, rank: Rank) -> None:
    """This rank's part: every size-th picture, its answers left in the folder that all ranks share."""
    from tqdm import tqdm

    from densenet_keras.prediction import inference

    folder, topology = config.run.log_dir, rank.topology
    with open(os.path.join(folder, REQUEST), encoding="utf-8") as file:
        request: Dict[str, Any] = json.load(file)
    mine = request["paths"][topology.rank :: topology.size]
    timeout_seconds = float(config.device.first_step_timeout_seconds)
    found: List[Dict[str, Any]] = []
    with rank.watchdog.phase("preparing", timeout_seconds), inference.opened(
        config, topology, request["restore"]
    ) as network:
        bar = tqdm(
            total=len(mine),
            unit="picture",
            leave=False,
            delay=QUIET_SECONDS,
            disable=not (topology.is_primary and rank.is_watched),
        )
        with bar, rank.watchdog.phase("predicting", timeout_seconds):
            for answer in network.answers(((path, path) for path in mine), request["top_k"]):
                found.append(answer.as_json())
                rank.watchdog.beat()
                bar.update()
                if rank.stop.signal:
                    return
    files.write_json(_part(folder, topology.rank), found)


def _part(folder: str, rank: int) -> str:
    return os.path.join(folder, f"answers_{rank}.json")


def _gathered(folder: str, count: int, ranks: int) -> List[Answer]:
    """The answers of all ranks, in the order of the pictures."""
    parts = []
    for rank in range(ranks):
        with open(_part(folder, rank), encoding="utf-8") as file:
            parts.append([Answer.from_json(values) for values in json.load(file)])
    return [parts[number % ranks][number // ranks] for number in range(count)]


def _write(found: List[Answer], settings: Settings) -> None:
    if settings.json:
        json.dump([answer.as_json() for answer in found], sys.stdout, indent=2)
        print()
    elif settings.csv:
        answers.write_csv(sys.stdout, found, settings.top_k)
    else:
        print("\n".join(answers.table(found)))
