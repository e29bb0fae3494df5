"""Sums and broadcasts between processes with TensorFlow's own collective operations.

The tensors of one call travel in one packed buffer for each element type: one exchange instead of
hundreds (about half the time on loopback). TensorFlow sums a buffer in chunks, each beginning at another
rank, so from four ranks on the layout of the buffer decides the last bits of the sums: changing the
packing changes the course of a resumed run.
"""

from __future__ import annotations

import itertools
from typing import Callable, Dict, List, Sequence

import tensorflow as tf
from tensorflow.python.ops import collective_ops

# A key names one collective on all ranks. Never reused in a process, because the server remembers the
# shape that a key had in an earlier graph; equal on all ranks, because they build the same graphs.
_instance_keys = itertools.count(1)

_HOST_GROUP = 1
_ACCELERATOR_GROUP = 2

REDUCIBLE = (tf.float32, tf.int32)


class Collectives:
    """One rank's part in the sums and broadcasts over two or more ranks.

    Args:
        host: full name of this rank's CPU device; the collectives run on it.
        accelerator: full name of this rank's GPU, where float32 sums then run through NCCL. Counts and
            the one broadcast stay on the host.
    """

    def __init__(self, rank: int, size: int, host: str, accelerator: str = "") -> None:
        self._rank = rank
        self._size = size
        self._host = host
        self._accelerator = accelerator

    def sums(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """Sums over ranks of float32 and int32 tensors with static shapes, in the order given."""
        return self._reduce(tensors, self._sum)

    def means(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """Means over ranks of float32 tensors with static shapes, in the order given."""
        return self._reduce(tensors, lambda buffer: self._sum(buffer) / self._size)

    def from_rank_0(self, variables: Sequence[tf.Variable]) -> tf.Operation:
        """Assigns rank 0's values to the variables, which must be initialised."""
        assignments: List[tf.Operation] = []
        for members in _by_dtype(variables).values():
            values = [variables[i].read_value() for i in members]
            if self._rank == 0:
                assignments.append(self._send(_pack(values)).op)
                continue
            received = self._receive(sum(_elements(v) for v in values), values[0].dtype)
            for i, value in zip(members, _unpack(received, values)):
                assignments.append(variables[i].assign(value, read_value=False))
        return tf.group(*assignments, name="broadcast")

    def _reduce(
        self, tensors: Sequence[tf.Tensor], reduce_buffer: Callable[[tf.Tensor], tf.Tensor]
    ) -> List[tf.Tensor]:
        results: List[tf.Tensor] = list(tensors)
        for dtype, members in _by_dtype(tensors).items():
            parts = [tensors[i] for i in members]
            if dtype not in REDUCIBLE:
                raise ValueError(
                    f"{parts[0].name} is {dtype.name}; ranks can sum float32 and int32: cast it first"
                )
            for i, total in zip(members, _unpack(reduce_buffer(_pack(parts)), parts)):
                results[i] = total
        return results

    def _sum(self, buffer: tf.Tensor) -> tf.Tensor:
        on_accelerator = bool(self._accelerator) and buffer.dtype == tf.float32
        with tf.device(self._accelerator if on_accelerator else self._host):
            return collective_ops.all_reduce(
                tf.identity(buffer),  # carries the device, which the operation insists on
                group_size=self._size,
                group_key=_ACCELERATOR_GROUP if on_accelerator else _HOST_GROUP,
                instance_key=next(_instance_keys),
                merge_op="Add",
                final_op="Id",
                communication_hint="nccl" if on_accelerator else "ring",
            )

    def _send(self, buffer: tf.Tensor) -> tf.Tensor:
        with tf.device(self._host):
            buffer = tf.identity(buffer)
            return collective_ops.broadcast_send(
                buffer, buffer.shape, buffer.dtype, self._size, _HOST_GROUP, next(_instance_keys)
            )

    def _receive(self, elements: int, dtype: tf.DType) -> tf.Tensor:
        with tf.device(self._host):
            return collective_ops.broadcast_recv(
                [elements], dtype, self._size, _HOST_GROUP, next(_instance_keys)
            )


def _by_dtype(values: Sequence[tf.Tensor]) -> Dict[tf.DType, List[int]]:
    """Positions of the values of each element type, in order; types in order of appearance."""
    members: Dict[tf.DType, List[int]] = {}
    for i, value in enumerate(values):
        members.setdefault(value.dtype.base_dtype, []).append(i)
    return members


def _elements(tensor: tf.Tensor) -> int:
    elements = tensor.shape.num_elements()
    if elements is None:
        raise ValueError(f"{tensor.name} has shape {tensor.shape}; ranks exchange static shapes only")
    return int(elements)


def _pack(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    for tensor in tensors:
        _elements(tensor)
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def _unpack(buffer: tf.Tensor, like: Sequence[tf.Tensor]) -> List[tf.Tensor]:
    parts = tf.split(buffer, [_elements(tensor) for tensor in like])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, like)]
