"""The structure that the README describes, read from the code's own imports."""

import ast
import os
import re

import pytest

from densenet_keras.settings.device import BACKENDS
from tests.support.paths import ROOT

# Rooms from the bottom up: a room uses only those before it. Inside a room modules may use each other.
ROOMS = (
    "errors",
    "files",
    "terminal",
    "network",
    "layers",
    "settings",
    "topology",
    "schedule",
    "stop",
    "watchdog",
    "rank",
    "checkpoints",
    "data",
    "backends",
    "training",
    "prediction",
    "exports",
    "launch",
    "commands",
    "__main__",
)

# Imported before any process starts, so they must come up in milliseconds.
NO_TENSORFLOW = [
    "errors", "topology", "schedule", "stop", "watchdog", "network.variants", "checkpoints.files",
    "checkpoints.run_folder", "settings.setting", "settings.groups", "settings.config", "settings.rules",
    "settings.arguments", "commands.main", "commands.resolution", "commands.preflight", "commands.predict",
    "data.crc32c",
    "prediction.pictures", "prediction.answers", "prediction.source", "commands.advice",
    "data.picture_header", "data.exif", "data.classes", "data.tfrecord", "data.order",
    "data.record_index", "data.records", "data.record_reader", "data.shards",
    "launch.launcher", "launch.supervisor", "launch.rank_logs", "launch.rendezvous",
    "launch.diagnosis", "launch.folder_lock",
    "launch.hangs", "launch.restarts", "launch.peers", "launch.views", "launch.outlet", "launch.processes",
    "launch.rank_states",
    "backends", "backends.ascend.adapter", "backends.ascend.option_keys",
    "backends.ascend.options", "backends.ascend.flags", "backends.ascend.machine",
    "backends.ascend.rank_table", "backends.ascend.rank_table_rules", "backends.ascend.job_table",
    "backends.ascend.rank_environment", "backends.ascend.host", "backends.ascend.table_command",
    "backends.ascend.failures", "backends.tensorflow.host", "backends.host", "files", "terminal", "__main__",
    "commands.confirm", "backends.confirmation", "backends.confirm_lines",
    "commands.foreign", "commands.import_weights", "network.variables", "network.preprocessing",
    "network.weights.source", "network.weights.formats", "commands.export", "exports.formats",
    "exports.names", "commands.start",
]  # fmt: skip

READS_ENVIRONMENT = [
    "commands.main", "commands.in_python", "commands.predict", "commands.worker", "commands.confirm",
    "commands.confirm_runs", "commands.tensorflow_import",
    "launch.launcher", "launch.rank_logs", "stop", "watchdog", "data.records", "terminal",
    "backends.ascend.backend", "backends.ascend.adapter",
    "backends.tensorflow.local", "training.weights_digest",
]  # fmt: skip


def modules():
    package = os.path.join(ROOT, "densenet_keras")
    for folder, _, names in os.walk(package):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                parts = os.path.relpath(path, package)[:-3].split(os.sep)
                if parts[-1] == "__init__":
                    parts.pop()
                if parts:
                    yield ".".join(parts), path


SOURCES = dict(modules())


def read(module):
    with open(SOURCES[module], encoding="utf-8") as file:
        return file.read()


def imports(module, at_top_only=False):
    """Full names of what `module` imports; names of this package without `densenet_keras.`"""
    tree = ast.parse(read(module))
    found = set()
    for node in tree.body if at_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.replace("densenet_keras.", "", 1) for name in found}


def own(names):
    """Of imported names, the modules of this package that they come from."""
    for name in names:
        parts = name.split(".")
        while parts and ".".join(parts) not in SOURCES:
            parts.pop()
        if parts:
            yield ".".join(parts)


def room(module):
    return module.partition(".")[0]


def test_every_module_has_a_room():
    assert {room(module) for module in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_down(module):
    """Those inside functions too: a circle between rooms is one whenever it is closed."""
    place = ROOMS.index(room(module))
    upward = [other for other in own(imports(module)) if ROOMS.index(room(other)) > place]
    assert not upward, f"{module} imports {upward} from rooms above it"


def test_an_import_inside_a_function_is_seen():
    assert "backends.tensorflow.backend" in set(own(imports("backends.tensorflow.host")))


def test_backends_do_not_know_each_other():
    for module in SOURCES:
        here = re.match(r"backends\.(ascend|tensorflow)\b", module)
        for other in own(imports(module)):
            there = re.match(r"backends\.(ascend|tensorflow)\b", other)
            assert not (here and there) or here.group() == there.group(), f"{module} imports {other}"


@pytest.mark.parametrize("module", NO_TENSORFLOW)
def test_what_runs_before_processes_start_needs_no_tensorflow(module):
    seen, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        names = imports(current, at_top_only=True)
        assert not any(name.split(".")[0] == "tensorflow" for name in names), f"{module} by way of {current}"
        seen.add(current)
        waiting += [other for other in own(names) if other not in seen]


def test_one_module_imports_the_adapter():
    adapter = re.compile(r"npu_bridge|\bhccl\.(manage|split)|import hccl")
    naming = [name for name in SOURCES if adapter.search(read(name))]
    assert naming == ["backends.ascend.adapter"]


def test_a_backend_is_a_folder_and_one_name():
    """A third one touches nothing else: nobody outside compares, or imports from, a backend by name."""
    folders = {name.split(".")[1] for name in SOURCES if name.count(".") == 2 and room(name) == "backends"}
    assert folders == set(BACKENDS)
    comparison = re.compile(r"""(backend|\.name) *(==|!=|in) *\(?["'](ascend|tensorflow)["']""")
    assert [name for name in SOURCES if comparison.search(read(name))] == []
    for module in SOURCES:
        if room(module) != "backends":
            inside = [other for other in own(imports(module)) if re.match(r"backends\.\w+\.", other)]
            assert not inside, f"{module} imports {inside}; ask densenet_keras.backends"


def test_only_processes_and_devices_read_the_environment():
    reading = {name for name in SOURCES if re.search(r"os\.(environ|getenv)", read(name))}
    assert reading <= set(READS_ENVIRONMENT)


def test_only_backends_open_sessions():
    """And what trains nothing and is no rank: the decoder of single pictures, a loaded model, exports."""
    opening = {n for n in SOURCES if re.search(r"\bSession\(", read(n)) and room(n) != "exports"}
    assert opening <= {
        "backends.tensorflow.backend", "backends.ascend.backend", "backends.cpu", "data.decoder",
        "checkpoints.model",
    }  # fmt: skip


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_modules_stay_readable(module):
    lines = read(module).count("\n")
    assert lines <= 400, f"{module} has {lines} lines; look for the seam inside"


@pytest.mark.parametrize("script", ["train_keras.py", "evaluate.py", "finetune.py"])
def test_scripts_are_a_page(script):
    with open(os.path.join(ROOT, script), encoding="utf-8") as file:
        assert len(file.readlines()) <= 30


MOST_PARAMETERS = 6
KERAS_BUILDERS = re.compile(r"DenseNet|__init__")  # public, in the manner of tf.keras.applications and layers


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_functions_take_few_parameters(module):
    for node in ast.walk(ast.parse(read(module))):
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            exempt = room(module) in ("network", "settings") or KERAS_BUILDERS.search(node.name)
            assert exempt or len(names) <= MOST_PARAMETERS, f"{module}.{node.name} takes {len(names)}"
