"""The batches of one rank, as tf.data pipelines with fully static shapes.

Records are read by number, one Python call for a whole local batch (a call for each record would
cost four times as much), then decoded in parallel, order kept. `prefetch` comes last: on
an NPU that is what keeps the whole pipeline on the host.
"""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Tuple

import numpy as np
import tensorflow as tf
from tensorflow.python.util import deprecation

from densenet_keras.data import images as preprocessing
from densenet_keras.data.order import NO_RECORD, Stream, TrainOrder, eval_batches_per_rank, eval_records
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.data.records import BadRecord, Split
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

PREFETCH_BATCHES = 2


def train_dataset(
    split: Split, config: Config, topology: Topology, start_step: tf.Tensor, stream: Optional[Stream] = None
) -> tf.data.Dataset:
    """This rank's endless training stream, from global step `start_step` on.

    Elements: images [batch, size, size, 3] uint8, labels [batch] int32 from 0. Which image, crop and
    flip stand where depends on (seed, pass over the data, position in the pass) alone: not on the
    number of ranks or threads, nor on where the stream was started.

    Args:
        start_step: int64 scalar, read when the iterator is initialised.
        stream: what the run has left out so far, looked at for each batch; by default nothing.
    """
    data, image_size = config.data, _image_size(config)
    reader = RecordReader(split)
    order = TrainOrder(data.seed, len(split), data.batch_size, topology.rank, topology.size)

    def read(step: np.int64) -> Tuple[np.ndarray, ...]:
        skipped = stream.skipped_images if stream else 0
        batch, following = order.batch(int(step), skipped), order.batch(int(step) + 1, skipped)
        encoded = reader.images(batch.records, following.records)
        labels = split.label[batch.records] - np.int32(data.label_offset)
        return encoded, labels.astype(np.int32), batch.records, batch.draws

    def decode(encoded: tf.Tensor, label: tf.Tensor, draw: tf.Tensor) -> Tuple[tf.Tensor, ...]:
        image = preprocessing.decode_train(
            encoded, draw, image_size, data.min_crop_area, data.horizontal_flip
        )
        return image, label

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    batches = steps.map(
        lambda step: _call_numpy(
            read,
            step,
            data.batch_size,
            [(tf.string, []), (tf.int32, []), (tf.int64, []), (tf.int64, [2])],
        )
    )
    return _decoded_batches(batches, decode, split, config)


def eval_dataset(split: Split, config: Config, topology: Topology) -> tf.data.Dataset:
    """This rank's share of one evaluation: every record exactly once over all ranks.

    Elements: images [batch, size, size, 3] uint8, labels [batch] int32 from 0, weights [batch]
    float32: 1 for a record, 0 for the blank images that fill up the last batches. Every rank gets
    `eval_batches_per_rank` of them.
    """
    data, image_size = config.data, _image_size(config)
    reader = RecordReader(split)

    def read(step: np.int64) -> Tuple[np.ndarray, ...]:
        share = (len(split), data.batch_size, topology.rank, topology.size)
        records, following = eval_records(int(step), *share), eval_records(int(step) + 1, *share)
        real = records != NO_RECORD
        labels = np.where(real, split.label[records] - np.int32(data.label_offset), 0)
        encoded = reader.images(records, following[following != NO_RECORD])
        return encoded, labels.astype(np.int32), records, real.astype(np.float32)

    def decode(encoded: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> Tuple[tf.Tensor, ...]:
        image = tf.cond(
            weight > 0.0,
            lambda: preprocessing.decode_eval(encoded, image_size),
            lambda: tf.zeros([image_size, image_size, 3], tf.uint8),
        )
        return image, label, weight

    steps = tf.data.Dataset.range(eval_batches_per_rank(len(split), data.batch_size, topology.size))
    batches = steps.map(
        lambda step: _call_numpy(
            read,
            step,
            data.batch_size,
            [(tf.string, []), (tf.int32, []), (tf.int64, []), (tf.float32, [])],
        )
    )
    return _decoded_batches(batches, decode, split, config)


def _call_numpy(
    function: Callable[[np.int64], Tuple[np.ndarray, ...]],
    step: tf.Tensor,
    batch_size: int,
    kinds: List[Tuple[tf.DType, List[int]]],
) -> Tuple[tf.Tensor, ...]:
    """`function` of the step as an operation, its outputs [batch_size, *shape] of the given kinds."""
    outputs = tf.numpy_function(function, [step], [dtype for dtype, _ in kinds])
    for output, (_, shape) in zip(outputs, kinds):
        output.set_shape([batch_size] + shape)
    return tuple(outputs)


def _decoded_batches(
    batches: tf.data.Dataset, decode: Callable[..., Any], split: Split, config: Config
) -> tf.data.Dataset:
    """Decodes batches of (encoded, label, record, extra); decode(encoded, label, extra) is an element."""
    threads, batch_size = config.data.data_threads or 1, config.data.batch_size

    def decoded(*batch: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.Dataset.from_tensor_slices(batch)
        parallel = records.map(
            lambda encoded, label, record, extra: decode(encoded, label, extra), num_parallel_calls=threads
        ).batch(batch_size, drop_remainder=True)
        # Runs only if the batch failed: once more, record by record, to find which one to name. This is
        # also where a run that is allowed some bad records would put others in their place.
        careful = records.flat_map(lambda *fields: _decoded_or_named(fields, decode, split)).batch(
            batch_size, drop_remainder=True
        )
        return parallel.apply(tf.data.experimental.ignore_errors()).concatenate(careful).take(1)

    # One batch is current, so their order is kept; the next is decoded ahead. Not Dataset.interleave:
    # with num_parallel_calls it crashes the process if its iterator is destroyed while it works, which
    # is why the advice to use it is silenced.
    with deprecation.silence():
        one_ahead = tf.data.experimental.parallel_interleave(
            decoded, cycle_length=1, sloppy=False, buffer_output_elements=1, prefetch_input_elements=1
        )
    return batches.prefetch(1).apply(one_ahead).prefetch(PREFETCH_BATCHES)


def _decoded_or_named(
    fields: Tuple[tf.Tensor, ...], decode: Callable[..., Any], split: Split
) -> tf.data.Dataset:
    """One decoded element; an error that names the record if it cannot be decoded."""
    encoded, label, record, extra = fields
    own = tf.data.Dataset.from_tensors((encoded, label, extra)).map(decode)
    failed = tf.data.Dataset.from_tensors(record).map(lambda number: _refuse(own, split, number))
    return own.apply(tf.data.experimental.ignore_errors()).concatenate(failed).take(1)


def _refuse(like: tf.data.Dataset, split: Split, record: tf.Tensor) -> Tuple[tf.Tensor, ...]:
    """Fails with the name of the record; shaped like an element of `like`."""

    def fail(number: np.int64) -> None:
        raise BadRecord(
            f"{split.describe(int(number))}: the image cannot be decoded, though its checksum matches: it "
            "was written damaged; write the shard anew without it"
        )

    dtypes = tf.nest.flatten(tf.compat.v1.data.get_output_types(like))
    shapes = tf.nest.flatten(tf.compat.v1.data.get_output_shapes(like))
    outputs = tf.numpy_function(fail, [record], dtypes)
    for output, shape in zip(outputs, shapes):
        output.set_shape(shape)
    return tuple(outputs)


def _image_size(config: Config) -> int:
    assert config.model.image_size is not None, "cli resolves image_size"
    return config.model.image_size
