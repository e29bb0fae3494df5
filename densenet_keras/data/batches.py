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
from densenet_keras.data.bad_records import BadRecords
from densenet_keras.data.order import (
    NO_RECORD,
    Stream,
    TrainOrder,
    eval_batches_per_rank,
    eval_records,
)
from densenet_keras.data.places import MOST_ATTEMPTS, TrainPlaces, undecodable_record
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.data.records import STRICT, BadRecord, Split
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

PREFETCH_BATCHES = 2


def train_dataset(
    split: Split,
    config: Config,
    topology: Topology,
    start_step: tf.Tensor,
    stream: Optional[Stream] = None,
    bad: Optional[BadRecords] = None,
) -> tf.data.Dataset:
    """This rank's endless training stream, from global step `start_step` on.

    Elements: images [batch, size, size, 3] uint8, labels [batch] int32 from 0. Which image, crop and
    flip stand where depends on (seed, pass over the data, position in the pass) alone: not on the
    number of ranks or threads, nor on where the stream was started. In the place of a bad record stands
    the first good one of `order.substitute`.

    Args:
        start_step: int64 scalar, read when the iterator is initialised.
        stream: what the run had left out when the iterator was initialised; by default nothing.
        bad: takes note of bad records; by default the first one ends the stream.
    """
    data, image_size = config.data, _image_size(config)
    order = TrainOrder(data.seed, len(split), data.batch_size, topology.rank, topology.size)
    noted = BadRecords(split, STRICT) if bad is None else bad
    places = TrainPlaces(split, data.label_offset, noted)

    def read(step: np.int64) -> Tuple[np.ndarray, ...]:
        skipped = stream.skipped_at_start if stream else 0
        batch, following = order.batch(int(step), skipped), order.batch(int(step) + 1, skipped)
        return places.batch(batch.records, batch.draws, following.records)

    def batch_of(step: tf.Tensor) -> Tuple[Any, ...]:
        kinds: List[Tuple[tf.DType, List[int]]] = [
            (tf.string, []), (tf.int32, []), (tf.int64, []), (tf.int64, [2]), (tf.bool, []), (tf.int32, [2])
        ]  # fmt: skip
        whole = [(dtype, [data.batch_size, *shape]) for dtype, shape in kinds]
        encoded, labels, records, draws, are_jpeg, shapes = _call_numpy(read, [step], whole)
        windows, flips = preprocessing.random_crops(shapes, draws, data.min_crop_area)
        return encoded, labels, records, (draws, are_jpeg, windows, flips)

    def decode(encoded: tf.Tensor, label: tf.Tensor, extra: Tuple[tf.Tensor, ...]) -> Tuple[tf.Tensor, ...]:
        _, is_jpeg, window, flip = extra
        flip = flip if data.horizontal_flip else None
        return preprocessing.decode_crop(encoded, is_jpeg, window, flip, image_size), label

    def careful(
        _: tf.Tensor, __: tf.Tensor, record: tf.Tensor, extra: Tuple[tf.Tensor, ...]
    ) -> tf.data.Dataset:
        draw = extra[0]

        def attempt(number: tf.Tensor) -> Tuple[tf.Tensor, ...]:
            kinds: List[Tuple[tf.DType, List[int]]] = [(tf.string, []), (tf.int32, [])]
            encoded, label = _call_numpy(places.attempt, [record, draw, number], kinds)
            image = preprocessing.decode_train(
                encoded, draw, image_size, data.min_crop_area, data.horizontal_flip
            )
            return image, label

        attempts = tf.data.Dataset.range(MOST_ATTEMPTS).map(attempt)
        refused = tf.data.Dataset.from_tensors(record).map(lambda one: _refused(attempts, places.refuse, one))
        return attempts.apply(tf.data.experimental.ignore_errors()).concatenate(refused).take(1)

    batches = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max).map(batch_of)
    return _decoded_batches(batches, decode, careful, config)


def eval_dataset(
    split: Split, config: Config, topology: Topology, bad: Optional[BadRecords] = None
) -> tf.data.Dataset:
    """This rank's share of one evaluation: every record exactly once over all ranks.

    Elements: images [batch, size, size, 3] uint8, labels [batch] int32 from 0, weights [batch]
    float32: 1 for a record, 0 for blank images: in the place of bad records, and to fill up the last
    batches. Every rank gets `eval_batches_per_rank` of them.

    Args:
        bad: takes note of bad records; by default the first one ends the stream.
    """
    data, image_size = config.data, _image_size(config)
    reader = RecordReader(split)
    noted = BadRecords(split, STRICT) if bad is None else bad

    def without(_: int, record: int, error: BadRecord) -> int:
        noted.add(record, error)
        return NO_RECORD

    def read(step: np.int64) -> Tuple[np.ndarray, ...]:
        share = (len(split), data.batch_size, topology.rank, topology.size)
        records, following = eval_records(int(step), *share), eval_records(int(step) + 1, *share)
        encoded = reader.images(records, following[following != NO_RECORD], without)
        real = records != NO_RECORD
        labels = np.where(real, split.label[records] - np.int32(data.label_offset), 0)
        return encoded, labels.astype(np.int32), records, real.astype(np.float32)

    def decode(encoded: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> Tuple[tf.Tensor, ...]:
        image = tf.cond(
            weight > 0.0,
            lambda: preprocessing.decode_eval(encoded, image_size),
            lambda: tf.zeros([image_size, image_size, 3], tf.uint8),
        )
        return image, label, weight

    def blank(record: np.int64) -> np.float32:
        noted.add(int(record), undecodable_record(split, int(record)))
        return np.float32(0.0)

    def careful(
        encoded: tf.Tensor, label: tf.Tensor, record: tf.Tensor, weight: tf.Tensor
    ) -> tf.data.Dataset:
        own = tf.data.Dataset.from_tensors((encoded, label, weight)).map(decode)
        none = tf.data.Dataset.from_tensors(record).map(
            lambda one: decode(encoded, tf.zeros_like(label), *_call_numpy(blank, [one], [(tf.float32, [])]))
        )
        return own.apply(tf.data.experimental.ignore_errors()).concatenate(none).take(1)

    steps = tf.data.Dataset.range(eval_batches_per_rank(len(split), data.batch_size, topology.size))
    kinds = (tf.string, tf.int32, tf.int64, tf.float32)
    batches = steps.map(
        lambda step: _call_numpy(read, [step], [(dtype, [data.batch_size]) for dtype in kinds])
    )
    return _decoded_batches(batches, decode, careful, config)


def _call_numpy(
    function: Callable[..., Any], inputs: List[tf.Tensor], kinds: List[Tuple[tf.DType, List[int]]]
) -> Tuple[tf.Tensor, ...]:
    """`function` of `inputs` as an operation; types and shapes of its outputs."""
    outputs = tf.numpy_function(function, inputs, [dtype for dtype, _ in kinds])
    for output, (_, shape) in zip(outputs, kinds):
        output.set_shape(shape)
    return tuple(outputs)


def _decoded_batches(
    batches: tf.data.Dataset,
    decode: Callable[..., Any],
    careful: Callable[..., tf.data.Dataset],
    config: Config,
) -> tf.data.Dataset:
    """Decodes batches of (encoded, label, record, extra); decode(encoded, label, extra) is an element.

    Args:
        careful: one element, or what stands in its place, of (encoded, label, record, extra).
    """
    threads, batch_size = config.data.data_threads or 1, config.data.batch_size

    def decoded(*batch: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.Dataset.from_tensor_slices(batch)
        parallel = records.map(
            lambda encoded, label, record, extra: decode(encoded, label, extra), num_parallel_calls=threads
        ).batch(batch_size, drop_remainder=True)
        # Runs only if the batch failed: once more, record by record, to find which one is bad.
        one_by_one = records.flat_map(careful).batch(batch_size, drop_remainder=True)
        return parallel.apply(tf.data.experimental.ignore_errors()).concatenate(one_by_one).take(1)

    # One batch is current, so their order is kept; the next is decoded ahead. Not Dataset.interleave:
    # with num_parallel_calls it crashes the process if its iterator is destroyed while it works, which
    # is why the advice to use it is silenced.
    with deprecation.silence():
        one_ahead = tf.data.experimental.parallel_interleave(
            decoded, cycle_length=1, sloppy=False, buffer_output_elements=1, prefetch_input_elements=1
        )
    return batches.prefetch(1).apply(one_ahead).apply(_one_thread_a_picture).prefetch(PREFETCH_BATCHES)


def _one_thread_a_picture(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`dataset`, no operation of which divides its work: pictures are decoded side by side already.

    The option of tf.data for this would stand behind the last prefetch.
    """
    experimental = tf.data.experimental
    variant = tf.raw_ops.MaxIntraOpParallelismDataset(
        input_dataset=experimental.to_variant(dataset),
        max_intra_op_parallelism=1,
        output_types=tf.nest.flatten(tf.compat.v1.data.get_output_types(dataset)),
        output_shapes=tf.nest.flatten(tf.compat.v1.data.get_output_shapes(dataset)),
    )
    return experimental.from_variant(variant, experimental.get_structure(dataset))


def _refused(
    like: tf.data.Dataset, refuse: Callable[[np.int64], None], record: tf.Tensor
) -> Tuple[tf.Tensor, ...]:
    """`refuse` of the record, which fails; shaped like an element of `like`."""
    dtypes = tf.nest.flatten(tf.compat.v1.data.get_output_types(like))
    shapes = tf.nest.flatten(tf.compat.v1.data.get_output_shapes(like))
    return _call_numpy(refuse, [record], list(zip(dtypes, shapes)))


def _image_size(config: Config) -> int:
    assert config.model.image_size is not None, "cli resolves image_size"
    return config.model.image_size
