"""Random images and labels in place of a data set, to measure the step without its input."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import tensorflow as tf

from densenet_keras.data.batches import PREFETCH_BATCHES
from densenet_keras.data.order import eval_batches_per_rank
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology


class SplitSizes(NamedTuple):
    """Images in the two splits."""

    train_images: int
    eval_images: int


# ImageNet-1k (ILSVRC 2012), so that epochs and schedules are those of the real run.
SYNTHETIC_SPLIT_SIZES = SplitSizes(train_images=1281167, eval_images=50000)


def synthetic_train_dataset(config: Config, topology: Topology) -> tf.data.Dataset:
    """One random batch, made once and repeated without end; elements as `pipeline.train_dataset`."""
    return _one_batch(config, topology).repeat().prefetch(PREFETCH_BATCHES)


def synthetic_eval_dataset(
    config: Config, topology: Topology, images: int = SYNTHETIC_SPLIT_SIZES.eval_images
) -> tf.data.Dataset:
    """`images` images over all ranks, all from one random batch; elements as `pipeline.eval_dataset`."""
    batch_size = config.data.batch_size
    batches = eval_batches_per_rank(images, batch_size, topology.size)
    first = tf.data.Dataset.range(batches).map(
        lambda step: (step * topology.size + topology.rank) * batch_size
    )

    def weighted(
        batch: Tuple[tf.Tensor, tf.Tensor], start: tf.Tensor
    ) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        positions = start + tf.range(batch_size, dtype=tf.int64)
        return batch[0], batch[1], tf.cast(positions < images, tf.float32)

    batch = _one_batch(config, topology).repeat()
    return tf.data.Dataset.zip((batch, first)).map(weighted).prefetch(PREFETCH_BATCHES)


def _one_batch(config: Config, topology: Topology) -> tf.data.Dataset:
    assert config.model.image_size is not None, "cli resolves image_size"
    assert config.model.num_classes is not None, "cli resolves num_classes"
    size, classes = config.model.image_size, config.model.num_classes
    batch_size, seed = config.data.batch_size, config.data.seed

    def make(rank: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        seeds = tf.stack([tf.constant(seed, tf.int64), rank])
        images = tf.random.stateless_uniform([batch_size, size, size, 3], seeds, 0, 256, tf.int32)
        labels = tf.random.stateless_uniform([batch_size], seeds, 0, classes, tf.int32)
        return tf.cast(images, tf.uint8), labels

    # Made inside the pipeline: an operation in front of it would be placed on the accelerator.
    return tf.data.Dataset.range(topology.rank, topology.rank + 1).map(make).cache()
