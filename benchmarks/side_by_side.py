"""Sides of a benchmark that take turns, and rows for the table in docs/performance.md."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").setLevel(logging.ERROR)

LEARNING_RATE = 0.1
# What begins the lines of results that `make bench` collects.
ROW = "ROW "
POINT = "POINT "
Reading = Dict[str, float]


class Stopwatch:
    """Counts what this process takes from now on, or what children of it take that end from now on.

    Args:
        whose: resource.RUSAGE_SELF or RUSAGE_CHILDREN.
    """

    def __init__(self, whose: int = resource.RUSAGE_SELF) -> None:
        self._whose = whose
        self._wall, self._before = time.monotonic(), resource.getrusage(whose)

    def reading(self) -> Reading:
        """Wall-clock and processor seconds, page faults, the peak so far in MB."""
        before, after = self._before, resource.getrusage(self._whose)
        return {
            "seconds": time.monotonic() - self._wall,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "page_faults": after.ru_minflt - before.ru_minflt,
            "peak_megabytes": after.ru_maxrss / 1024,
        }


def reading(work: Callable[[], Any]) -> Reading:
    """What running `work` took."""
    watch = Stopwatch()
    work()
    return watch.reading()


def command(script: str, settings: Mapping[str, Any]) -> List[str]:
    """The command line of one of the project's scripts."""
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, str(ROOT / script), *flags]


def run_command(arguments: Sequence[str], code: int = 0) -> Reading:
    """What a command took, in the project's folder.

    One that does not exit with `code` ends the benchmark with its words.
    """
    watch = Stopwatch(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        arguments, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != code:
        raise SystemExit(done.stdout.decode("utf-8", "replace"))
    return watch.reading()


def in_turns(sides: Mapping[str, Callable[[], Reading]], rounds: int) -> Dict[str, List[Reading]]:
    """Readings of `rounds` rounds of one turn for every side, after a round that does not count."""
    found: Dict[str, List[Reading]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, run in sides.items():
            taken = run()
            if number:
                found[side].append(taken)
    return found


def processes_in_turns(
    script: str,
    argv: Sequence[str],
    sides: Iterable[str],
    rounds: int,
    pythons: Optional[Mapping[str, str]] = None,
) -> Dict[str, List[Reading]]:
    """As `in_turns`, each side a process of `script`, which is given `--worker SIDE` and calls `serve`.

    Args:
        pythons: the interpreter of each side; this one by default.
    """
    workers = {side: _start((pythons or {}).get(side, sys.executable), script, argv, side) for side in sides}
    try:
        return in_turns({side: functools.partial(_run_block, workers[side]) for side in sides}, rounds)
    finally:
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()


def serve(run_block: Callable[[], Any]) -> None:
    """A worker's part: runs a block for every line of standard input."""
    start = _resident_megabytes()
    for _ in sys.stdin:
        print(json.dumps({**reading(run_block), "start_megabytes": start}), flush=True)


def ratios(found: Sequence[Reading], peer: Sequence[Reading], what: str = "cpu_seconds") -> List[float]:
    """`found` over `peer`, round by round."""
    return [one[what] / other[what] for one, other in zip(found, peer)]


def row(what: str, peer: str, values: Sequence[float], how: str = "") -> None:
    """Prints one result for people, and for `make bench`.

    Args:
        what: what was measured, with its sizes.
        peer: what it is compared with.
        values: the ratio of each round.
        how: what the ratio is of, where that is not processor time.
    """
    median, low, high = statistics.median(values), min(values), max(values)
    how = how or "processor time"
    print(f"{what}: {median:.2f} of {peer} ({low:.2f} to {high:.2f}; {how})", flush=True)
    print(
        ROW + json.dumps({"what": what, "peer": peer, "ratio": median, "low": low, "high": high, "how": how})
    )


def point(of: str, size: int, what: str, cost: float, unit: str) -> None:
    """Prints what something costs at one size, for people and for the picture of `make bench`.

    Args:
        of: what there are `size` of, such as pictures.
        what: what was measured.
        cost: processor time, unless `what` says another.
        unit: of `cost`.
    """
    print(f"{size} {of}: {what} {cost:.3g} {unit}", flush=True)
    print(POINT + json.dumps({"of": of, "size": size, "what": what, "cost": cost, "unit": unit}))


def photographs(width: int, height: int, count: int = 32) -> List[bytes]:
    """JPEGs with the size and the look of photographs: smooth shapes under some noise."""
    import numpy as np
    import tensorflow as tf

    random = np.random.RandomState(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    encoded = []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        pixels = tf.compat.v1.placeholder(tf.uint8, [height, width, 3])
        jpeg = tf.image.encode_jpeg(pixels, quality=95)
        for _ in range(count):
            waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(0, 0.1, (3, 3))]
            picture = 128 + 90 * np.stack(waves, axis=2) + random.normal(0, 6, (height, width, 3))
            encoded.append(session.run(jpeg, {pixels: np.clip(picture, 0, 255).astype(np.uint8)}))
    return encoded


def write_shards(folder: str, pictures: Sequence[bytes], images: int, shards: int) -> List[str]:
    """Shards of so many images in a new folder, `pictures` again and again; the paths of the training split.

    The validation split is the same.
    """
    from densenet_keras.data import tfrecord

    os.mkdir(folder)
    paths = [os.path.join(folder, f"train-{shard:05d}-of-{shards:05d}") for shard in range(shards)]
    for shard, path in enumerate(paths):
        with open(path, "wb") as file:
            for number in range(shard, images, shards):
                features: Dict[str, tfrecord.Feature] = {
                    "image/encoded": pictures[number % len(pictures)],
                    "image/class/label": 1 + number % 1000,
                    "image/filename": f"{number}.JPEG",
                }
                file.write(tfrecord.frame(tfrecord.encode_example(features)))
        os.link(path, path.replace("train-", "validation-"))
    return paths


def keras_densenet(image_size: int, num_classes: int, threads: int) -> Any:
    """tf.keras.applications.DenseNet121, in a session with so many intra-op threads."""
    import tensorflow as tf

    session_config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=3
    )
    tf.compat.v1.keras.backend.set_session(tf.compat.v1.Session(config=session_config))
    shape = (image_size, image_size, 3)
    return tf.keras.applications.DenseNet121(weights=None, input_shape=shape, classes=num_classes)


def cpu_backend(**settings: Any) -> Tuple[Any, Any]:
    """Configuration and backend of a rank on the CPU, in a process that is prepared for it."""
    from densenet_keras import backends
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology

    config = Config().replace(backend="tensorflow", **settings)
    backends.host(config).prepare_process(config, os.environ)
    return config, backends.create(config, Topology())


@contextlib.contextmanager
def training(
    steps_in_block: int, freeze: str = "", rearranged: bool = True, **settings: Any
) -> Iterator[Callable[[], Any]]:
    """A function that runs a block of our training steps on random pictures, as a rank runs them."""
    config, backend = cpu_backend(synthetic_data=True, data_threads=1, **settings)
    import tensorflow as tf

    from densenet_keras.data import synthetic
    from densenet_keras.network.densenet import build_densenet
    from densenet_keras.network.variants import VARIANTS
    from densenet_keras.topology import Topology
    from densenet_keras.training import steps

    frozen = VARIANTS[config.model.model].frozen_parts(freeze) if freeze else ()
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        tf.keras.backend.set_learning_phase(1)
        dataset = synthetic.synthetic_train_dataset(config, Topology())
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        _, step = steps.build_train_step(
            lambda images: build_densenet(
                config.model,
                images,
                frozen=frozen,
                rearranged=backend.rearranges and rearranged,
                recompute=config.device.recompute,
            ),
            backend.measure_get_next(iterator),
            config,
            lambda global_step: tf.constant(LEARNING_RATE),
            backend,
        )
        initialise = tf.compat.v1.global_variables_initializer()
    with backend.session(graph) as session:
        session.run(initialise)
        session.run(iterator.initializer)
        graph.finalize()
        yield lambda: backend.run_steps(session, step, steps_in_block)


def _start(python: str, script: str, argv: Sequence[str], side: str) -> Any:
    return subprocess.Popen(
        [python, "-W", "ignore", script, *argv, "--worker", side],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )


def _run_block(worker: Any) -> Reading:
    worker.stdin.write("run\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith("{"):
            taken: Reading = json.loads(line)
            return taken
    raise SystemExit(f"a worker of the benchmark exited with {worker.wait()}; see its message above")


def _resident_megabytes() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
