"""A trained network that answers in Python: `densenet_keras.Classifier`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Iterable, List, Union

from densenet_keras.prediction import inference, pictures
from densenet_keras.prediction.answers import Answer
from densenet_keras.prediction.reader import Picture
from densenet_keras.prediction.source import network_config
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology


class Classifier:
    """Says what pictures show, with its own graph and session; several may be open at once.

    classifier = densenet_keras.Classifier.load("model_flowers")
    for answer in classifier.predict(["rose.jpg"]):
        print(answer.path, answer.top[0].label, answer.top[0].probability)
    """

    def __init__(self, config: Config, path: str) -> None:
        # One thread owns the session: sessions nest in a thread, and several classifiers do not.
        self._thread = ThreadPoolExecutor(1)
        self._open = ExitStack()
        self._run: inference.Inference = self._thread.submit(
            lambda: self._open.enter_context(inference.opened(config, Topology(), path))
        ).result()

    @staticmethod
    def load(path: str, *, batch_size: int = 32, threads: int = 0) -> Classifier:
        """The network of a run folder, its folder best, or one checkpoint.

        Args:
            batch_size: pictures that go through the network together.
            threads: of the network and of decoding; 0: one for each core.

        Raises:
            UsageError: no checkpoint there, or nothing beside it that says what the network is.
        """
        count = threads or len(os.sched_getaffinity(0))
        config = network_config(path)
        return Classifier(
            config.replace(batch_size=batch_size, data_threads=count, intra_op_threads=count), path
        )

    def predict(self, given: Union[Picture, Iterable[Picture]], top_k: int = 5) -> List[Answer]:
        """An answer for each picture, in order; one that cannot be read has `error` instead of `top`.

        Args:
            given: one or several paths of files or folders, JPEG or PNG bytes, or arrays [height, width, 3]
                uint8 in RGB.
            top_k: classes to name, the most probable first.
        """
        is_one = isinstance(given, (str, os.PathLike, bytes)) or getattr(given, "ndim", 0) == 3
        named: List[Any] = [given] if is_one else list(given)  # type: ignore[arg-type]
        listed = []
        for number, item in enumerate(named):
            if isinstance(item, (str, os.PathLike)):
                listed += [(path, path) for path in pictures.find([os.fspath(item)])]
            else:
                listed.append((f"#{number}", item))
        return self._thread.submit(lambda: list(self._run.answers(listed, top_k))).result()

    def close(self) -> None:
        """Ends the session; no call may follow."""
        self._thread.submit(self._open.close).result()
        self._thread.shutdown()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
