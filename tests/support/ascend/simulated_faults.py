"""What the pretended device does wrong on purpose: SIMULATED_NPU_BREAK names faults, with commas.

loop             the loop is not built: every session.run is one step
single_steps     a step outside the loop is made twice
repeat           all steps of a loop see the batch of the first
rates            rates are rounded to float16
drift            gradients are not summed over ranks
saved            variables are read with their kernels in another order
restored         kernels that are assigned from the host arrive as zeros
evaluation       an evaluation by itself gives other numbers
overflow         no overflow is seen
evaluation_overflow  an evaluation leaves an overflow to the next step
split            gradients are counted with one more
memory           a run takes ten times the memory
devices          a run takes the next device
folders          the compiler leaves its files elsewhere
kind             npu-smi names another kind of NPU
out_of_memory    a batch of 3 images or more does not fit
"""

import os

import numpy as np
import tensorflow as tf

ACTIVE = frozenset(filter(None, os.environ.get("SIMULATED_NPU_BREAK", "").split(",")))
KNOWN = frozenset(line.split()[0] for line in __doc__.splitlines()[2:] if line.strip())
assert ACTIVE <= KNOWN, sorted(ACTIVE - KNOWN)

_MEGABYTES = 600


def has(name):
    assert name in KNOWN, name
    return name in ACTIVE


def is_single_step(session, ancestors):
    """Whether a graph without the loop is a step of a session that loops."""
    loops = session._npu_options.get("iterations_per_loop", 1) > 1
    counts = [op for op in ancestors if op.type in ("AssignAdd", "AssignAddVariableOp")]
    return loops and any("global_step" in op.inputs[0].name for op in counts)


def iterations(session, ancestors, loops, count):
    """How often the device really runs a graph that it should run `count` times."""
    if has("loop"):
        return 1
    if has("single_steps") and not loops and is_single_step(session, ancestors):
        return 2
    return count


def fed_again(run, ancestors):
    """Feeds for the second and later iterations: the batch that the first would have taken."""
    if not has("repeat"):
        return None
    elements = [tensor for op in ancestors if op.type == "IteratorGetNext" for tensor in op.outputs]
    return dict(zip(elements, run(elements)))


def fed(ops, feed_dict):
    """What arrives of what the host assigns."""
    if not (has("restored") and feed_dict and any(op.name.endswith("checkpoint/restore") for op in ops)):
        return feed_dict
    return {key: np.zeros_like(value) if np.ndim(value) == 4 else value for key, value in feed_dict.items()}


def results(session, fetches, found, types):
    """What the host gets of `found`, the values of a list of fetches."""
    if not isinstance(fetches, (list, tuple)):
        return found
    if has("rates"):
        found = [_rounded(fetch, value) for fetch, value in zip(fetches, found)]
    if has("saved") and types <= {"VarHandleOp", "ReadVariableOp", "VariableV2", "Identity"}:
        found = [value[..., ::-1] if np.ndim(value) == 4 else value for value in found]
    if has("evaluation") and session._npu_options.get("graph_run_mode") == 0 and "IteratorGetNext" in types:
        found = [
            value * np.float32(1.1) if np.asarray(value).dtype == np.float32 else value for value in found
        ]
    return found


def _rounded(fetch, value):
    op = getattr(fetch, "op", None)
    is_rate = op is not None and op.type == "Identity" and "learning_rate" in op.inputs[0].name
    return np.float32(np.float16(value)) if is_rate else value


def leftover():
    """A variable that an evaluation leaves set; None unless that is what is wrong."""
    if not has("evaluation_overflow"):
        return None
    with tf.init_scope():
        return tf.compat.v1.Variable(
            False, trainable=False, use_resource=True, name="simulated_leftover",
            collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES, "simulated/leftover"],
        )  # fmt: skip


def after_run(session, run, types, ancestors):
    """Marks that an evaluation came."""
    left = session.graph.get_collection("simulated/leftover")
    is_evaluation = "IteratorGetNext" in types and "global_step" not in " ".join(op.name for op in ancestors)
    if left and is_evaluation:
        left[0].load(True, session)


def take_chip(device):
    """Says that this process uses memory of `device`, as long as it lives."""
    folder = os.environ.get("SIMULATED_NPU_CHIPS", "")
    if not folder:
        return
    path = os.path.join(folder, str(int(device) + has("devices")))
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {_MEGABYTES * (10 if has('memory') else 1)}\n")
