"""Where in a step numbers ceased to be numbers."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from densenet_keras.backends.base import Backend
from densenet_keras.training.agreement import HostSum


class Place(NamedTuple):
    """Where the forward pass of a step is not finite first."""

    rank: int
    layer: str
    rows: List[int]  # places in the rank's batch of the pictures concerned


class Origin(NamedTuple):
    """A step that went wrong, the same on all ranks."""

    step: int  # the global step after it
    what: str
    place: Optional[Place]  # None if the forward pass is finite on all ranks
    last_variable: Optional[str]  # of those that are not finite after the step, the last in the forward pass

    @property
    def words(self) -> str:
        """Where it began, in words."""
        if self.place is not None:
            return (
                f"in its forward pass the output of layer {self.place.layer} is the first that is not "
                f"finite, on rank {self.place.rank}"
            )
        if self.last_variable is not None:
            return (
                f"its forward pass is finite, its gradient is not, from {self.last_variable} on towards the "
                "input"
            )
        return "the outputs of all layers are finite, and so are the weights after it"


def first_place(
    session: tf.compat.v1.Session, model: tf.keras.Model, backend: Backend, sums: HostSum
) -> Optional[Place]:
    """Where the next batch makes the forward pass not finite, over all ranks; takes that batch.

    Adds its nodes to the graph now: no run that goes well has them.
    """
    graph = session.graph
    graph._unsafe_unfinalize()
    with graph.as_default(), tf.name_scope(None), backend.placement():
        layers = [layer for layer in model.layers if layer.get_output_at(0).shape.ndims]
        finite = tf.stack([_finite_rows(layer.get_output_at(0)) for layer in layers])
    graph.finalize()
    found = session.run(finite)
    broken = np.flatnonzero(~found.all(axis=1))
    size, rank = backend.topology.size, backend.topology.rank
    told = np.zeros(size, np.int64)
    told[rank] = broken[0] + 1 if len(broken) else 0
    first = sums(session, {"layers": told.tolist()})["layers"]
    if not first.any():
        return None
    concerned = int(np.flatnonzero(first)[0])
    layer = int(first[concerned]) - 1
    mine = ~found[layer] & (rank == concerned)
    rows = sums(session, {"rows": mine.astype(int).tolist()})["rows"]
    return Place(concerned, layers[layer].name, np.flatnonzero(rows).tolist())


def _finite_rows(output: tf.Tensor) -> tf.Tensor:
    """Of each picture of the batch, whether all of its numbers are finite."""
    return tf.reduce_all(tf.math.is_finite(tf.reshape(output, [output.shape[0].value, -1])), axis=1)
