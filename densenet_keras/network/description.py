"""What a network is made of: shapes, parameters and multiply-adds of every part."""

from __future__ import annotations

from typing import Any, Iterator, List, NamedTuple

import tensorflow as tf

from densenet_keras.network.layers import DenseBlock, DenseLayer, TransitionLayer

HEADINGS = ("layer", "kind", "output shape", "parameters", "multiply-adds")


class Row(NamedTuple):
    """One line of the table; `depth` 1 is a part of the line of depth 0 above it."""

    depth: int
    name: str
    kind: str
    output_shape: tf.TensorShape
    parameters: int
    multiply_adds: int


def describe(model: tf.keras.Model) -> str:
    """A table of every layer, dense layers one by one inside their blocks, with totals.

    Multiply-adds are those of convolutions and dense layers for one image, the multiplications with
    padding included, as published figures count them.

    Args:
        model: a built model with a fixed image size, made of the layers of this package and
            Keras' own.

    Raises:
        ValueError: an output shape is unknown, so that nothing can be counted.
    """
    listed = list(rows(model))
    table = [HEADINGS]
    for row in listed:
        shape = "x".join(str(side) for side in row.output_shape.as_list()[1:])
        name = "  " * row.depth + row.name
        table.append((name, row.kind, shape, f"{row.parameters:,}", f"{row.multiply_adds:,}"))
    lines = _aligned(table)
    trainable = sum(v.shape.num_elements() for v in model.trainable_weights)
    moving = sum(v.shape.num_elements() for v in model.non_trainable_weights)
    multiply_adds = sum(row.multiply_adds for row in listed if row.depth == 0)
    rule = "-" * len(lines[0])
    return "\n".join(
        [
            f"{model.name}",
            lines[0],
            rule,
            *lines[1:],
            rule,
            f"parameters: {trainable + moving:,} ({trainable:,} trainable, {moving:,} not)",
            f"multiply-adds for one image: {multiply_adds:,} ({multiply_adds / 1e9:.2f} G)",
        ]
    )


def rows(model: tf.keras.Model) -> Iterator[Row]:
    """The lines of the table, in the order of the data."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.InputLayer):
            continue
        shape = tf.TensorShape(layer.get_input_shape_at(0))
        yield _row(0, layer, shape)
        if isinstance(layer, DenseBlock):
            for part in layer.dense_layers:
                yield _row(1, part, shape)
                shape = part.compute_output_shape(shape)


def _row(depth: int, layer: tf.keras.layers.Layer, input_shape: tf.TensorShape) -> Row:
    output_shape = layer.compute_output_shape(input_shape)
    if not output_shape[1:].is_fully_defined():
        raise ValueError(
            f"{layer.name} has output shape {output_shape}: multiply-adds need a fixed image size; "
            "build the model with input_shape=(height, width, channels)"
        )
    count = _multiply_adds(layer, input_shape)
    return Row(depth, layer.name, type(layer).__name__, output_shape, layer.count_params(), count)


def _multiply_adds(layer: tf.keras.layers.Layer, input_shape: tf.TensorShape) -> int:
    total = 0
    for part in _parts(layer):
        total += _multiply_adds(part, input_shape)
        input_shape = part.compute_output_shape(input_shape)
    if isinstance(layer, (tf.keras.layers.Conv2D, tf.keras.layers.Dense)):
        # Each output element is a sum over the kernel's weights for its channel.
        outputs = layer.compute_output_shape(input_shape)[1:].num_elements()
        total += outputs * layer.kernel.shape[:-1].num_elements()
    return total


def _parts(layer: tf.keras.layers.Layer) -> List[Any]:
    """The layers one after another that do the arithmetic of one of ours."""
    if isinstance(layer, DenseBlock):
        return list(layer.dense_layers)
    if isinstance(layer, DenseLayer):
        return [layer.conv1, layer.conv2]
    if isinstance(layer, TransitionLayer):
        return [layer.reduction]
    return []


def _aligned(table: List[Any]) -> List[str]:
    """Lines of equal width, text to the left and numbers to the right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    return [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        )
        for line in table
    ]
