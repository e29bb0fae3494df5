"""Processor time of each form of a convolution's gradients, on the shapes of DenseNet-121 at 224 pixels.

    python benchmarks/convolution_gradients.py --batch_size 8

The table behind `densenet_keras/network/convolutions.py`: for every shape, milliseconds of the
gradient of the kernel and of that of the input, as TensorFlow's own operation (plain), with its kernels
labelled eigen_tensor (labelled), and as a product of matrices (product, 1x1 only). Forms alternate within
a shape; the figures are medians. `difference` is the largest between forms, relative to the largest element.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import side_by_side
import tensorflow as tf

from densenet_keras.network import convolutions

Key = Tuple[str, str]  # what is computed, and how


class Shape(NamedTuple):
    """A convolution: side of its input, channels, filters, side of its kernel, stride."""

    size: int
    channels: int
    filters: int
    kernel: int
    stride: int = 1


SHAPES = (
    Shape(224, 3, 64, 7, 2),
    Shape(56, 64, 128, 1), Shape(56, 224, 128, 1), Shape(56, 256, 128, 1), Shape(56, 128, 32, 3),
    Shape(28, 128, 128, 1), Shape(28, 480, 128, 1), Shape(28, 512, 256, 1), Shape(28, 128, 32, 3),
    Shape(14, 256, 128, 1), Shape(14, 992, 128, 1), Shape(14, 1024, 512, 1), Shape(14, 128, 32, 3),
    Shape(7, 512, 128, 1), Shape(7, 992, 128, 1), Shape(7, 128, 32, 3),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for shape in SHAPES:
        milliseconds, difference = _measure(shape, options)
        figures = "  ".join(f"{what} {how} {value:.1f}" for (what, how), value in milliseconds.items())
        print(f"{tuple(shape)}  {figures}  difference {difference:.0e}", flush=True)


def _measure(shape: Shape, options: argparse.Namespace) -> Tuple[Dict[Key, float], float]:
    """Milliseconds of each form, and the largest relative difference between forms."""
    with tf.Graph().as_default():
        forms = _forms(shape, options.batch_size)
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=options.threads)
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.compat.v1.Session(config=config) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            results = {key: session.run(tensor) for key, tensor in forms.items()}
            times: Dict[Key, List[float]] = {key: [] for key in forms}
            for _ in range(options.repeats):
                for key, tensor in forms.items():
                    taken = side_by_side.reading(functools.partial(session.run, tensor.op))
                    times[key].append(taken["cpu_seconds"])
    differences = [
        np.abs(result - results[what, "plain"]).max() / np.abs(result).max()
        for (what, _), result in results.items()
    ]
    return {key: 1000 * statistics.median(each) for key, each in times.items()}, max(differences)


def _forms(shape: Shape, batch: int) -> Dict[Key, tf.Tensor]:
    """Every form of both gradients, on random variables."""
    channels, filters, strides = shape.channels, shape.filters, [1, shape.stride, shape.stride, 1]
    side = -(-shape.size // shape.stride)
    images = _random("images", [batch, shape.size, shape.size, channels])
    kernel = _random("kernel", [shape.kernel, shape.kernel, channels, filters])
    gradient = _random("gradient", [batch, side, side, filters])
    graph, found = tf.compat.v1.get_default_graph(), {}
    for how, label in (("plain", ""), ("labelled", "eigen_tensor")):
        names = ("Conv2DBackpropFilter", "Conv2DBackpropInput")
        with graph._kernel_label_map(dict.fromkeys(names, label) if label else {}):
            found["kernel", how] = tf.compat.v1.nn.conv2d_backprop_filter(
                images, kernel.shape.as_list(), gradient, strides, "SAME"
            )
            found["input", how] = tf.compat.v1.nn.conv2d_backprop_input(
                images.shape.as_list(), kernel, gradient, strides, "SAME"
            )
    if shape.kernel == 1:
        found["kernel", "product"] = convolutions.kernel_gradient(images, kernel, gradient)
        found["input", "product"] = convolutions.input_gradient(images, kernel, gradient)
    return found


def _random(name: str, shape: List[int]) -> tf.Variable:
    initializer = tf.random_normal_initializer(seed=1)
    return tf.compat.v1.get_variable(name, shape, initializer=initializer, use_resource=True)


if __name__ == "__main__":
    main()
