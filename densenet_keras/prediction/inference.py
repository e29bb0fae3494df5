"""A trained network on the device of one rank, and the stream of pictures through it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Deque, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras import backends
from densenet_keras.backends.base import Backend
from densenet_keras.checkpoints import saver
from densenet_keras.data import classes
from densenet_keras.errors import UsageError
from densenet_keras.network.densenet import build_densenet
from densenet_keras.prediction.answers import Answer, Guess
from densenet_keras.prediction.reader import Picture, PictureReader, UnreadableError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from densenet_keras.training import steps

PREFETCH_BATCHES = 2


class _Read(NamedTuple):
    """One place of a batch."""

    name: str
    error: str  # why its image is blank; empty if it is the picture


class Inference:
    """A network with the weights of a checkpoint; made by `opened`."""

    def __init__(self, config: Config, names: Optional[Sequence[str]], session: Any, nodes: _Nodes) -> None:
        self._config, self._names = config, names
        self._session, self._nodes = session, nodes

    def answers(self, pictures: Iterable[Tuple[str, Picture]], top_k: int) -> Iterator[Answer]:
        """An answer for each (name, picture), in their order; damaged pictures have an error in theirs.

        Args:
            top_k: how many classes to name, the most probable first.
        """
        source = self._nodes.source
        source.pictures = iter(pictures)
        self._session.run(self._nodes.iterator.initializer)
        top_k = min(top_k, int(self._nodes.probabilities.shape[-1]))
        while True:
            try:
                probabilities = self._session.run(self._nodes.probabilities)
            except tf.errors.OutOfRangeError:
                return
            for place, read in enumerate(source.batches.popleft()):
                if read.error:
                    yield Answer(read.name, error=read.error)
                else:
                    yield Answer(read.name, self._guesses(probabilities[place], top_k))

    def _guesses(self, probabilities: np.ndarray, top_k: int) -> Tuple[Guess, ...]:
        # Of equal probabilities the lower class first, as tf.nn.top_k in evaluation has it.
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        named = self._names
        return tuple(
            Guess(int(n), named[n] if named is not None else str(n), float(probabilities[n])) for n in best
        )


class _Nodes(NamedTuple):
    source: _Source
    iterator: Any
    probabilities: tf.Tensor


class _Source:
    """Reads pictures ahead in threads and hands them out in batches.

    Attributes:
        pictures: what the next pass over the data reads.
        batches: what stands in each batch that was handed out, for who runs them.
    """

    def __init__(self, reader: PictureReader, image_size: int, batch_size: int, threads: int) -> None:
        self._read, self._batch_size, self._threads = reader.read, batch_size, threads
        self._blank = np.zeros([image_size, image_size, 3], np.uint8)
        self.pictures: Iterator[Tuple[str, Picture]] = iter(())
        self.batches: Deque[List[_Read]] = deque()

    def __call__(self) -> Iterator[np.ndarray]:
        """Batches [batch_size, image_size, image_size, 3] uint8, the last one filled up with blank images."""
        self.batches.clear()
        with ThreadPoolExecutor(self._threads) as pool:
            ahead: Deque[Tuple[str, Future[Any]]] = deque()
            pictures = self.pictures
            while True:
                for name, picture in itertools.islice(pictures, 2 * self._batch_size - len(ahead)):
                    ahead.append((name, pool.submit(self._read, picture)))
                if not ahead:
                    return
                batch = [ahead.popleft() for _ in range(min(self._batch_size, len(ahead)))]
                images, reads = [], []
                for name, future in batch:
                    image, error = self._outcome(future)
                    images.append(image)
                    reads.append(_Read(name, error))
                images += [self._blank] * (self._batch_size - len(images))
                self.batches.append(reads)
                yield np.stack(images)

    def _outcome(self, future: Future[Any]) -> Tuple[np.ndarray, str]:
        try:
            return future.result(), ""
        except UnreadableError as error:
            return self._blank, str(error) or "it cannot be decoded"


@contextlib.contextmanager
def opened(config: Config, topology: Topology, path: str) -> Iterator[Inference]:
    """The network of checkpoint or run folder `path` on this rank's device, while the body runs.

    Args:
        config: resolved, with the settings of the network in `path`.

    Raises:
        UsageError, RunError: see `saver.Saver.restore`.
    """
    checkpoint = saver.resolve(path)
    names = _class_names(checkpoint, config)
    backend = backends.create(config, topology)
    graph = tf.Graph()
    assert config.model.image_size is not None
    reader = PictureReader(config.model.image_size)
    with contextlib.closing(reader):
        with graph.as_default(), backend.placement():
            nodes, restorer, initialise = _build(config, reader, backend)
        with backend.session(graph) as session:
            backend.check_graph([nodes.probabilities], "prediction")
            session.run(initialise)
            restorer.restore(session, checkpoint)
            graph.finalize()
            yield Inference(config, names, session, nodes)


def _class_names(checkpoint: str, config: Config) -> Optional[Tuple[str, ...]]:
    names, count = classes.of_checkpoint(checkpoint, config.data.label_offset), config.model.num_classes
    if names is not None and count is not None and len(names) < count:
        raise UsageError(
            f"{os.path.join(os.path.dirname(checkpoint), classes.LABELS_FILE)} names {len(names)} of the "
            f"network's {count} classes; complete the file, or remove it for numbers instead of names"
        )
    return names


@tf.autograph.experimental.do_not_convert  # nothing needs it, and it takes a third of a start
def _build(config: Config, reader: PictureReader, backend: Backend) -> Tuple[_Nodes, saver.Saver, Any]:
    tf.keras.backend.set_learning_phase(0)
    size, batch_size = config.model.image_size, config.data.batch_size
    assert size is not None
    source = _Source(reader, size, batch_size, config.data.data_threads or 1)
    dataset = tf.data.Dataset.from_generator(source, tf.uint8, [batch_size, size, size, 3])
    # Prefetch stays last: on an NPU that keeps the whole pipeline on the host.
    iterator = tf.compat.v1.data.make_initializable_iterator(dataset.prefetch(PREFETCH_BATCHES))
    images = steps.network_input(iterator.get_next(), config.model)
    model = build_densenet(config.model, images)
    with backend.full_precision():
        probabilities = tf.nn.softmax(steps.inference_logits(model, images, backend))
    global_step = tf.compat.v1.train.get_or_create_global_step()
    variables = {v.op.name: v for v in [*model.weights, global_step]}
    restorer = saver.Saver(variables, config.run.log_dir, keep=0)
    return _Nodes(source, iterator, probabilities), restorer, tf.compat.v1.global_variables_initializer()
