"""The inference graph of a loaded model, made of constants alone."""

from __future__ import annotations

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import tensorflow as tf
from tensorflow.python.util import deprecation

from densenet_keras.backends import cpu
from densenet_keras.checkpoints.model import Model
from densenet_keras.network.folding import folded_logits
from densenet_keras.settings.config import ModelConfig
from densenet_keras.training.steps import network_input

# Names of the graph's input and outputs, and those of the files.
PIXELS, LOGITS, PROBABILITIES = "pixels", "logits", "probabilities"
OUTPUTS = (LOGITS, PROBABILITIES)
_UNFOLDED = "unfolded"


class Frozen(NamedTuple):
    """A graph from `PIXELS` to `OUTPUTS` without variables.

    Attributes:
        graph_def: input ``[any, size, size, 3] float32``.
        nodes_before: how many it would have without folding.
        nodes: how many it has, constants included.
    """

    graph_def: tf.compat.v1.GraphDef
    nodes_before: int
    nodes: int


def freeze(model: Model, network: ModelConfig, fold_bn: bool, normalised: bool = False) -> Frozen:
    """The inference graph of `model`; what depends on constants alone is computed.

    Args:
        fold_bn: fold batch normalisation, see `network.folding`.
        normalised: `PIXELS` are normalised outside; otherwise RGB from 0 to 255, normalised inside.
    """
    with model.entered():
        size, channels = model.input_shape[1], model.input_shape[3]
        pixels = tf.compat.v1.placeholder(tf.float32, [None, size, size, channels], name=PIXELS)
        inputs = pixels if normalised else network_input(pixels, network)
        plain = model(inputs, training=False)
        logits = tf.identity(folded_logits(model, inputs) if fold_bn else plain, name=LOGITS)
        tf.nn.softmax(logits, name=PROBABILITIES)
        unfolded = tf.nn.softmax(tf.identity(plain), name=_UNFOLDED)
        whole = model.graph.as_graph_def()
        before = _frozen(model.session, whole, [unfolded.op.name])
        after = _frozen(model.session, whole, OUTPUTS)
    return Frozen(after, len(before.node), len(after.node))


def reference_logits(model: Model, normalised: np.ndarray) -> np.ndarray:
    """``[n, classes] float32`` of the checkpoint itself, as evaluation computes them."""
    logits: np.ndarray = model.predict_on_batch(normalised)
    return logits


def run(graph_def: tf.compat.v1.GraphDef, pixels: np.ndarray) -> np.ndarray:
    """The logits of a graph as `freeze` makes it, from pixels in its input's form."""
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        tf.import_graph_def(graph_def, name="")
        feed = {graph.get_tensor_by_name(f"{PIXELS}:0"): pixels.astype(np.float32)}
        logits: np.ndarray = session.run(graph.get_tensor_by_name(f"{LOGITS}:0"), feed)
    return logits


def _frozen(
    session: tf.compat.v1.Session, graph_def: tf.compat.v1.GraphDef, outputs: Sequence[str]
) -> tf.compat.v1.GraphDef:
    with deprecation.silence():
        frozen = tf.compat.v1.graph_util.convert_variables_to_constants(session, graph_def, list(outputs))
    return _precomputed(frozen, outputs)


def _precomputed(graph_def: tf.compat.v1.GraphDef, outputs: Sequence[str]) -> tf.compat.v1.GraphDef:
    """`graph_def` with the results of all operations that depend on constants alone in their place."""
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        tf.import_graph_def(graph_def, name="")
        constant, wanted = _constant_operations(graph)
        values = session.run([operation.outputs[0] for operation in wanted])
    computed = tf.compat.v1.GraphDef(versions=graph_def.versions)
    results = dict(zip((operation.name for operation in wanted), values))
    for node in graph_def.node:
        if node.name in results:
            computed.node.append(_constant(node.name, results[node.name]))
        elif node.name not in constant:
            computed.node.append(node)
    return tf.compat.v1.graph_util.extract_sub_graph(computed, list(outputs))


def _constant_operations(graph: tf.Graph) -> Tuple[set, List[tf.Operation]]:
    """Names of the operations that depend on constants alone, and those whose results others need."""
    constant, wanted = set(), {}
    for operation in graph.get_operations():  # inputs come first
        sources = [tensor.op for tensor in operation.inputs]
        settled = all(source.name in constant for source in sources) and not operation.control_inputs
        if settled and len(operation.outputs) == 1 and (sources or operation.type == "Const"):
            constant.add(operation.name)
        else:
            wanted.update({source.name: source for source in sources if source.name in constant})
    return constant, list(wanted.values())


def _constant(name: str, value: np.ndarray) -> tf.compat.v1.NodeDef:
    tensor = tf.compat.v1.make_tensor_proto(value)
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tensor)
    node.attr["dtype"].type = tensor.dtype
    return node
