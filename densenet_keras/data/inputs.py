"""The data of a run: TFRecord splits or synthetic images, behind one pair of functions."""

from __future__ import annotations

import contextlib
import functools
from typing import Iterator, List, Optional, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras.data import batches as pipeline
from densenet_keras.data import classes, records, synthetic
from densenet_keras.data.bad_records import BadRecords, News
from densenet_keras.data.order import Stream, TrainOrder, eval_batches_per_rank, substitute
from densenet_keras.errors import RunError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology


@contextlib.contextmanager
def naming_bad_records() -> Iterator[None]:
    """Turns the error of a session.run that met a damaged record into the RunError that names it."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = records.named_in(error.message or "")
        if not reason:
            raise
        raise RunError(reason) from error


class Inputs:
    """Datasets of one rank.

    Args:
        train: whether training batches will be asked for.
        evaluate: whether evaluation batches will be asked for.

    Raises:
        UsageError: a split that is asked for is missing or damaged.
    """

    def __init__(self, config: Config, topology: Topology, *, train: bool, evaluate: bool) -> None:
        self._config = config
        self._topology = topology
        self._train: Optional[records.Split] = None
        self._validation: Optional[records.Split] = None
        policy = records.Policy.of(config)
        self._news = News(policy.folder)
        if config.data.synthetic_data:
            self.train_images, self.eval_images = synthetic.SYNTHETIC_SPLIT_SIZES
            return
        data = config.data
        if train:
            self._train = records.open_split(data.data_dir, "train", shards=data.shards, policy=policy)
            self._bad_training = self._noting(self._train, policy)
        if evaluate:
            self._validation = records.open_split(data.data_dir, "validation", policy=policy)
            self._bad_validation = self._noting(self._validation, policy)
        self.train_images = len(self._train) if self._train is not None else 0
        self.eval_images = len(self._validation) if self._validation is not None else 0

    def _noting(self, split: records.Split, policy: records.Policy) -> BadRecords:
        bad = BadRecords(split, policy)
        if self._topology.is_primary:
            bad.list_indexed()
        return bad

    def bad_record_news(self) -> List[str]:
        """A line for the log for each record that any rank has found to be bad since the last call."""
        return self._news.lines()

    def bad_eval_images(self) -> int:
        """How many bad validation records this rank knows; those that all know are the primary's to count."""
        if self._validation is None:
            return 0
        return self._bad_validation.count() - (0 if self._topology.is_primary else len(self._validation.bad))

    @functools.lru_cache(maxsize=None)  # noqa: B019 - one object in a process
    def class_names(self) -> Optional[Tuple[str, ...]]:
        """What the data calls the classes of the network; None if it does not, or has other classes."""
        splits = [split for split in (self._train, self._validation) if split is not None]
        if not splits:
            return None
        data, count = self._config.data, self._config.model.num_classes
        found = classes.find(data.data_dir, data.label_offset, splits)
        return found.names if found.count == count else None

    def train_dataset(self, start_step: tf.Tensor, stream: Stream) -> tf.data.Dataset:
        """See `pipeline.train_dataset`."""
        if self._train is None:
            return synthetic.synthetic_train_dataset(self._config, self._topology)
        return pipeline.train_dataset(
            self._train, self._config, self._topology, start_step, stream, self._bad_training
        )

    def describe_batch(self, stream: Stream, step: int, rank: int) -> List[str]:
        """The records of global step `step` on `rank`, in the order of its batch; [] of synthetic data.

        In the place of a record that this rank knows to be bad stands the one that was taken instead.
        """
        if self._train is None:
            return []
        data, size = self._config.data, self._topology.size
        batch = TrainOrder(data.seed, len(self._train), data.batch_size, rank, size).batch(
            step, stream.skipped_images
        )
        return [
            self._train.describe(self._standing(int(record), draw))
            for record, draw in zip(batch.records, batch.draws)
        ]

    def _standing(self, record: int, draw: np.ndarray) -> int:
        assert self._train is not None
        for attempt in range(1, pipeline.MOST_ATTEMPTS):
            if not self._bad_training.knows(record):
                break
            record = substitute(draw, attempt, len(self._train))
        return record

    def eval_dataset(self) -> tf.data.Dataset:
        """Pass after pass of `pipeline.eval_dataset`, `eval_batches` batches each."""
        if self._validation is None:
            one_pass = synthetic.synthetic_eval_dataset(self._config, self._topology)
        else:
            one_pass = pipeline.eval_dataset(
                self._validation, self._config, self._topology, self._bad_validation
            )
        # Prefetch stays last: on an NPU that keeps the whole pipeline on the host.
        return one_pass.repeat().prefetch(pipeline.PREFETCH_BATCHES)

    @property
    def eval_batches(self) -> int:
        """Batches of this rank in one pass over the validation images."""
        return eval_batches_per_rank(self.eval_images, self._config.data.batch_size, self._topology.size)
