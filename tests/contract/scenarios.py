"""What a rank does in the contract suite. Runs in rank processes; `test_contract.py` judges the results.

Each scenario gets make_backend(**settings) and the topology and returns named arrays. It calls the backend
in the order in which a run does: plan_steps, build, open the session, initialise variables, then the
iterator, fill in values, broadcast, prepare_steps, finalise, run.
"""

import numpy as np
import tensorflow as tf

from densenet_keras import schedule
from densenet_keras.settings.config import Config
from densenet_keras.training import steps
from tests.support.ranks import load_function

STEPS = 6
GLOBAL_BATCH = 8
CLASSES = 5
IMAGE_SHAPE = (8, 8, 3)
BASE_RATE = 0.25  # exact in binary, as are its first multiples


def run(topology, factory, scenarios):
    """Runs the named scenarios one after another; results are named `scenario/array`."""
    make = load_function(factory)
    base = Config().replace(
        rank_size=topology.size,
        batch_size=GLOBAL_BATCH // topology.size,
        num_classes=CLASSES,
        image_size=IMAGE_SHAPE[0],
        intra_op_threads=1,
        data_threads=1,
        mode="train",
        first_step_timeout_seconds=60,
    )

    def make_backend(**settings):
        return make(base.replace(**settings), topology)

    results = {}
    for scenario in scenarios:
        tf.keras.backend.clear_session()
        for name, value in SCENARIOS[scenario](make_backend, topology).items():
            results[f"{scenario}/{name}"] = value
    return results


def reduction_inputs(rank):
    """Values of one rank for the reductions, in the order of the call."""
    random = np.random.RandomState(rank)
    return [
        random.randn(2, 3).astype(np.float32),
        random.randint(-(2**20), 2**20, 4).astype(np.int32),
        np.float32(rank + 0.5),
        np.int32(2**24 + 1 + rank),  # beyond what float32 counts exactly
        random.randn(33).astype(np.float32),
    ]


def reductions(make_backend, topology):
    backend = make_backend()
    values = reduction_inputs(topology.rank)
    with tf.Graph().as_default() as graph, backend.placement():
        inputs = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in values]
        floats = [tensor for tensor in inputs if tensor.dtype == tf.float32]
        sums = backend.all_reduce_sum(inputs)
        means = backend.all_reduce_mean(floats)
        feed = dict(zip(inputs, values))
        with backend.session(graph) as session:
            graph.finalize()
            first = session.run([sums, means], feed)
            second = session.run([sums, means], feed)
    results = {}
    for run_name, (run_sums, run_means) in (("first", first), ("second", second)):
        results.update((f"{run_name}_sum{i}", value) for i, value in enumerate(run_sums))
        results.update((f"{run_name}_mean{i}", value) for i, value in enumerate(run_means))
    return results


def broadcast(make_backend, topology):
    backend = make_backend()
    values = {
        "kernel": np.full([3, 2], topology.rank + 1.5, np.float32),
        "moving_mean": np.full([4], topology.rank - 0.5, np.float32),
        "counter": np.int32(topology.rank + 7),
        "global_step": np.int64(topology.rank + 2**40),
    }
    with tf.Graph().as_default() as graph, backend.placement():
        variables = {}
        for name, value in values.items():
            with tf.compat.v1.variable_scope("", use_resource=name != "global_step"):
                variables[name] = tf.compat.v1.get_variable(
                    name,
                    value.shape,
                    tf.as_dtype(value.dtype),
                    tf.zeros_initializer(),
                    trainable=name == "kernel",
                )
        fill, feed = _fill(list(variables.values()), list(values.values()))
        send = backend.broadcast(list(variables.values()))
        initialise = tf.compat.v1.global_variables_initializer()
        with backend.session(graph) as session:
            session.run(initialise)
            session.run(fill, feed)
            graph.finalize()
            session.run(send)
            return session.run(variables)


def training(iterations_per_loop):
    def scenario(make_backend, topology):
        backend = make_backend(max_train_steps=STEPS, iterations_per_loop=iterations_per_loop)
        return _train(backend, topology, with_batch_norm=True)

    return scenario


def first_update(make_backend, topology):
    backend = make_backend(max_train_steps=1, iterations_per_loop=1)
    return _train(backend, topology, with_batch_norm=False)


def leave_by_exception(make_backend, topology):
    backend = make_backend(max_train_steps=STEPS, iterations_per_loop=2)
    try:
        _train(backend, topology, with_batch_norm=True, stop_after=2)
    except _Stopped as stopped:
        return {"stopped_at": stopped.args[0]}
    return {"stopped_at": -1}


def unused_variable(make_backend, topology):
    backend = make_backend()
    with tf.Graph().as_default(), backend.placement():
        used = tf.compat.v1.get_variable("used", [2], use_resource=True)
        unused = tf.compat.v1.get_variable("left_out", [2], use_resource=True)
        try:
            steps.build_step(
                backend,
                tf.compat.v1.train.MomentumOptimizer(0.1, 0.9),
                steps.StepParts(
                    losses={"loss": tf.reduce_sum(used)},
                    minimize="loss",
                    variables=[used, unused],
                    updates=[],
                    metrics={},
                ),
                tf.compat.v1.train.get_or_create_global_step(),
            )
        except ValueError as error:
            return {"message": str(error)}
    return {"message": ""}


SCENARIOS = {
    "reductions": reductions,
    "broadcast": broadcast,
    "training_1": training(1),
    "training_2": training(2),
    "training_4": training(4),
    "training_6": training(6),
    "first_update": first_update,
    "unused_variable": unused_variable,
    "leave_by_exception": leave_by_exception,
}


class _Stopped(Exception):
    pass


def _train(backend, topology, with_batch_norm, stop_after=None):
    """Trains a toy network on a fixed global stream of images; weights, metrics and step by chunk."""
    plan = schedule.plan(backend.config, train_images=GLOBAL_BATCH * 100, eval_images=0)
    backend.plan_steps(plan, 0)
    with tf.Graph().as_default() as graph, backend.placement():
        tf.keras.backend.set_learning_phase(1)
        iterator = tf.compat.v1.data.make_initializable_iterator(_dataset(topology))
        images, labels = backend.measure_get_next(iterator)
        model = _network(tf.cast(images, tf.float32) / 255.0, with_batch_norm)
        global_step = tf.compat.v1.train.get_or_create_global_step()
        count = tf.compat.v1.get_variable(
            "update_count", [], initializer=tf.zeros_initializer(), trainable=False, use_resource=True
        )
        step = _step(backend, model, labels, global_step, count)
        variables = [*model.trainable_variables, *model.non_trainable_variables, count]
        fill, feed = _fill(model.trainable_variables, _initial_values(model, topology.rank))
        send = backend.broadcast(variables)
        initialise = [
            tf.compat.v1.global_variables_initializer(),
            tf.compat.v1.local_variables_initializer(),
        ]
        results = {"step_op_types": _ancestor_types(step)}
        with backend.session(graph) as session:
            session.run(initialise)
            session.run(iterator.initializer)
            session.run(fill, feed)
            session.run(send)
            backend.prepare_steps(session, step, plan, 0)
            graph.finalize()
            for start, end in plan.chunks(0):
                chunk = backend.run_steps(session, step, end - start)
                results[f"global_step_{end}"] = session.run(global_step)
                results[f"compiled_{end}"] = chunk.untimed_steps > 0
                results[f"data_wait_{end}"] = chunk.data_wait_seconds
                results.update((f"{name}_{end}", value) for name, value in chunk.metrics.items())
                if end == stop_after:
                    raise _Stopped(end)
            final = session.run(variables)
    results["update_count"] = final.pop()
    trained = len(model.trainable_variables)
    results.update((f"weight{i:02}", value) for i, value in enumerate(final[:trained]))
    results.update((f"moving{i:02}", value) for i, value in enumerate(final[trained:]))
    return results


def _dataset(topology):
    """This rank's part of a global stream that is the same for any number of ranks."""
    random = np.random.RandomState(11)
    images = random.randint(0, 256, (STEPS, topology.size, GLOBAL_BATCH // topology.size, *IMAGE_SHAPE))
    labels = random.randint(0, CLASSES, images.shape[:3])
    mine = images[:, topology.rank].astype(np.uint8), labels[:, topology.rank].astype(np.int32)
    return tf.data.Dataset.from_tensor_slices(mine).repeat().prefetch(1)


def _network(inputs, with_batch_norm):
    layers = tf.keras.layers
    tensor = tf.keras.Input(tensor=inputs)
    model_input = tensor
    tensor = layers.Conv2D(16, 3, strides=2, use_bias=not with_batch_norm, name="conv")(tensor)
    if with_batch_norm:
        tensor = layers.BatchNormalization(momentum=0.9, name="bn")(tensor)
    tensor = layers.ReLU(name="relu")(tensor)
    tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
    return tf.keras.Model(model_input, layers.Dense(CLASSES, name="linear")(tensor))


def _step(backend, model, labels, global_step, count):
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=model.outputs[0])
    )
    decay = tf.add_n([tf.nn.l2_loss(variable) for variable in model.trainable_variables])
    rate = BASE_RATE * tf.cast(tf.cast(global_step, tf.int32) + 1, tf.float32)
    return steps.build_step(
        backend,
        tf.compat.v1.train.MomentumOptimizer(rate, 0.9, use_nesterov=True),
        steps.StepParts(
            losses={"loss": loss, "total_loss": loss + 1e-4 * decay},
            minimize="total_loss",
            variables=model.trainable_variables,
            updates=[*model.get_updates_for(model.inputs), count.assign_add(1.0, read_value=False)],
            metrics={"learning_rate": rate},
        ),
        global_step,
    )


def _initial_values(model, rank):
    """Other values on every rank, so that only a broadcast makes the ranks alike."""
    random = np.random.RandomState(rank)
    return [
        (0.3 * random.randn(*variable.shape.as_list())).astype(np.float32)
        for variable in model.trainable_variables
    ]


def _fill(variables, values):
    """An operation and its feed that assign host values, as restoring a checkpoint does."""
    placeholders = [tf.compat.v1.placeholder(v.dtype.base_dtype, v.shape) for v in variables]
    assignments = [v.assign(p, read_value=False) for v, p in zip(variables, placeholders)]
    return tf.group(*assignments), dict(zip(placeholders, values))


def _ancestor_types(step):
    """Types of all operations that a run of the step executes."""
    seen = set()
    stack = [step.train_op, *(metric.op for metric in step.metrics.values())]
    while stack:
        operation = stack.pop()
        if operation not in seen:
            seen.add(operation)
            stack.extend([tensor.op for tensor in operation.inputs] + list(operation.control_inputs))
    return sorted({operation.type for operation in seen})
