"""What an NPU rank does in `test_ascend_backend.py`, in its own process, on the stand-in for the adapter."""

import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from densenet_keras.errors import RunError
from densenet_keras.settings.config import Config
from tests.contract import scenarios, subjects
from tests.support import pictures


def train(topology, settings, overflow_on_rank=None, overflow_at="", stop_after=None):
    """Trains the toy network; its results, what the device saw (`history`) and `error`, an empty string."""
    if settings.get("npu") == "910b":
        os.environ.update(SIMULATED_NPU_CHIP="910b", SIMULATED_NPU_GENERATION="newer")
    if overflow_on_rank == topology.rank:
        os.environ["SIMULATED_NPU_OVERFLOW"] = overflow_at
    config = Config().replace(
        **{
            "rank_size": topology.size,
            "batch_size": scenarios.GLOBAL_BATCH // topology.size,
            "num_classes": scenarios.CLASSES,
            "image_size": scenarios.IMAGE_SHAPE[0],
            "max_train_steps": scenarios.STEPS,
            "mode": "train",
            **settings,
        }
    )
    backend = subjects.ascend(config, topology)
    results, error = {}, ""
    try:
        results = scenarios._train(backend, topology, with_batch_norm=True, stop_after=stop_after)
    except (RunError, ValueError, scenarios._Stopped) as caught:
        error = f"{type(caught).__name__}: {caught}"
    import simulated_npu

    compiled = [
        str(path) for path in pathlib.Path().rglob("kernel_meta/*") if path.read_text() == str(os.getpid())
    ]
    history = [[_plain(part) for part in event] for event in simulated_npu.history]
    return {
        **results,
        "history": json.dumps(history),
        "error": error,
        "notes": json.dumps(backend.notes()),
        "log_line": json.dumps(backend.extra_metrics({})),
        "optional": sorted(v.op.name for v in backend.optional_variables),
        "run_folder": os.path.abspath(config.run.log_dir),
        "compiled": json.dumps(compiled),
        "split": json.dumps(simulated_npu.split_strategy),
    }


def callbacks_use(topology):
    """Runs on the device that a user's callback causes through Keras, beyond what it asks for itself."""
    os.environ["POD_NAME"] = "worker-0"
    backend = subjects.ascend(Config().replace(batch_size=1), topology)
    import simulated_npu

    graph = tf.Graph()
    with graph.as_default():
        dense = tf.keras.layers.Dense(2)
        dense.build([None, 3])
        initialise = tf.compat.v1.global_variables_initializer()
    with backend.session(graph) as session:
        session.run(initialise)
        before = len(simulated_npu.history)
        same = tf.compat.v1.keras.backend.get_session() is session
        kernel, _ = dense.get_weights()
        runs = simulated_npu.history[before:]
    return {"same": same, "runs": len(runs), "kernel": kernel, "pod": os.environ.get("POD_NAME", "")}


def other_sessions(topology):
    """Sessions on the device, and runs, of a process that decodes a picture with the newer adapter loaded."""
    os.environ["SIMULATED_NPU_GENERATION"] = "newer"
    backend = subjects.ascend(Config().replace(batch_size=1), topology)
    import simulated_npu

    from densenet_keras.data import picture_header
    from densenet_keras.data.decoder import Decoder

    encoded = pictures.jpeg(0)
    decoder = Decoder()
    shape = decoder.pixels(encoded, picture_header.read(encoded)).shape
    decoder.close()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        session.run(tf.constant(1.0) + 1.0)
    with tf.Graph().as_default(), backend.session(tf.compat.v1.get_default_graph()):
        pass
    sessions = [event[1] for event in simulated_npu.history if event[0] == "session"]
    return {"shape": shape, "on_the_device": [options is not None for options in sessions]}


def refusals(topology):
    """Messages of what the stand-in refuses, as the adapter and its device do."""
    os.environ["SIMULATED_NPU_ADDRESSES"] = ",".join(topology.addresses)
    from hccl.manage import api
    from npu_bridge import npu_init

    messages = {}

    def attempt(name, action):
        try:
            action()
        except Exception as error:
            messages[name] = f"{type(error).__name__}: {error}"
        else:
            messages[name] = ""

    attempt("manage_before_start", api.get_rank_id)
    with tf.Graph().as_default():
        loss = tf.constant(1.0)
        attempt("tensor_as_step", lambda: npu_init.util.set_iteration_per_loop(None, loss, 2))
        attempt("no_iterations", lambda: npu_init.util.set_iteration_per_loop(None, loss.op, 0))
        attempt("int64_sum", lambda: npu_init.hccl_ops.allreduce(tf.constant(1, tf.int64), "sum"))
        variable = tf.compat.v1.get_variable("v", [2], use_resource=True)
        attempt("variable_sum", lambda: npu_init.hccl_ops.allreduce(variable, "sum"))
        attempt("int64_broadcast", lambda: npu_init.hccl_ops.broadcast([tf.constant(1, tf.int64)], 0))
        attempt("small_scale", lambda: npu_init.FixedLossScaleManager(0.5))
        attempt("split_before_start", lambda: npu_init.set_split_strategy_by_size([60, 40]))
        if topology.size > 1:
            optimizer = npu_init.NPUDistributedOptimizer(tf.compat.v1.train.MomentumOptimizer(0.1, 0.9))
            job = os.environ.pop("JOB_ID")
            attempt("no_job", lambda: optimizer.compute_gradients(tf.reduce_sum(variable), [variable]))
            os.environ["JOB_ID"] = job
            attempt("different_graphs", lambda: _run_another_graph(topology))
    attempt("one_shot_iterator", lambda: _run_with_options(_one_shot_batch, iterations=3))
    attempt("wrong_field", lambda: _run_with_options(_one_shot_batch, in_wrong_field=b"3"))
    return {name: np.array(message) for name, message in messages.items()}


def traps(topology):
    """Steps that one session.run makes when something about the loop is wrong, by what is wrong."""
    subjects.ascend(Config().replace(batch_size=1), topology)
    from npu_bridge import npu_init
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    def steps(option=3, loaded=3, scoped=False, reset=False, together=False, name_it=True):
        with tf.Graph().as_default():
            config = ConfigProto()
            carrier = config.graph_options.rewrite_options.custom_optimizers.add(name="NpuOptimizer")
            carrier.parameter_map["iterations_per_loop"].i = option
            carrier.parameter_map["enable_data_pre_proc"].b = True
            step = tf.compat.v1.get_variable("step", [], tf.int32, tf.ones_initializer(), use_resource=True)
            iterator = tf.compat.v1.data.make_initializable_iterator(tf.data.Dataset.range(9).repeat())
            with tf.control_dependencies([iterator.get_next()]):
                advance = tf.group(step.assign_add(1))
            with tf.compat.v1.Session(config=config) as session:
                initialise = tf.compat.v1.global_variables_initializer()
                session.run([initialise, iterator.initializer] if together else [initialise])
                if not together:
                    session.run(iterator.initializer)
                before = session.run(step)
                with tf.name_scope("scope" if scoped else None):
                    loop = npu_init.util.set_iteration_per_loop(session, advance, loaded)
                if reset:
                    session.run(tf.compat.v1.local_variables_initializer())
                session.run(loop if name_it else advance)
                return np.array([before, session.run(step) - before])

    return {
        "right": steps(),
        "one": steps(option=1, loaded=1),
        "scoped": steps(scoped=True),
        "reset_after_loading": steps(reset=True),
        "option_of_one": steps(option=1),
        "step_itself": steps(name_it=False),
        "initialised_together": steps(together=True),
    }


def _run_another_graph(topology):
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    config = ConfigProto()
    config.graph_options.rewrite_options.custom_optimizers.add(name="NpuOptimizer")
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        session.run(tf.abs(tf.fill([2 + topology.rank], 1.0)))


def _one_shot_batch():
    return tf.compat.v1.data.make_one_shot_iterator(tf.data.Dataset.range(9)).get_next()


def _run_with_options(build, iterations=None, in_wrong_field=None):
    """Runs what `build` makes; where the device would end the process, raises SystemError instead."""
    import simulated_npu
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    def fatal(message):
        raise SystemError(message)

    simulated_npu.fatal = fatal
    config = ConfigProto()
    carrier = config.graph_options.rewrite_options.custom_optimizers.add(name="NpuOptimizer")
    if iterations:
        carrier.parameter_map["iterations_per_loop"].i = iterations
    if in_wrong_field:
        carrier.parameter_map["iterations_per_loop"].s = in_wrong_field
    with tf.Graph().as_default():
        node = build()
        with tf.compat.v1.Session(config=config) as session:
            session.run(node)


def _plain(part):
    if isinstance(part, dict):
        return {key: value.decode() if isinstance(value, bytes) else value for key, value in part.items()}
    return part
