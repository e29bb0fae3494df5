"""The structure that the README describes, read from the code's own imports."""

import ast
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# From the bottom up. A module imports only from lower layers, or from its own layer's package.
LAYERS = (
    ("errors flags settings config topology schedule variants checkpoint_files watchdog "
     "data.crc32c data.tfrecord data.data_order data.record_index data.records data.record_reader"),
    "layers model inspection objective data.preprocessing graph_check backends.base",
    ("data.synthetic data.pipeline data.inputs checkpoint steps "
     "launch.machine launch.rank_table_rules launch.rank_table launch.job_table launch.rank_environment "
     "launch.rank_logs launch.rendezvous launch.diagnosis launch.supervisor backends.cuda_driver "
     "backends.collectives backends.adapter backends.npu_options backends.npu_flags backends.npu_session "
     "backends.loop_plan backends.overflow backends.tensorflow backends.ascend backends"),
    "evaluation",
    ("loop user_callbacks callbacks callbacks.console callbacks.evaluation callbacks.guard "
     "callbacks.learning_rate callbacks.metrics callbacks.progress_bar callbacks.saving "
     "callbacks.tensorboard callbacks.throughput"),
    "run_folder runs dry_run",
    "launch.worker",
    "validation options preflight launch.launcher cli",
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer.split()}

# Imported before any process starts, so they must come up in milliseconds.
NO_TENSORFLOW = [
    "errors", "flags", "settings", "config", "topology", "schedule", "variants", "checkpoint_files",
    "watchdog", "run_folder", "validation", "options", "preflight", "cli", "data.crc32c",
    "data.tfrecord", "data.data_order", "data.record_index", "data.records", "data.record_reader",
    "launch.launcher", "launch.supervisor", "launch.machine", "launch.rank_table",
    "launch.rank_table_rules", "launch.job_table", "launch.rank_environment", "launch.rank_logs",
    "launch.rendezvous", "launch.diagnosis", "backends", "backends.adapter", "backends.npu_options",
    "backends.npu_flags",
]  # fmt: skip

READS_ENVIRONMENT = [
    "cli", "launch.launcher", "launch.worker", "launch.rank_logs", "watchdog", "data.records",
    "backends.ascend", "backends.adapter",
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
                if parts and parts not in (["data"], ["launch"]):  # these hold a docstring alone
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


def test_every_module_has_a_layer():
    assert set(SOURCES) == set(RANK)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_down(module):
    upward = [other for other in own(imports(module, at_top_only=True)) if RANK[other] > RANK[module]]
    assert not upward, f"{module} imports {upward} from layers above it"


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
    assert naming == ["backends.adapter"]


def test_only_the_factory_compares_names_of_backends():
    comparison = re.compile(r"""(backend|\.name) *(==|!=|in) *\(?["'](ascend|tensorflow)["']""")
    assert {name for name in SOURCES if comparison.search(read(name))} <= {"backends", "cli"}


def test_only_processes_and_devices_read_the_environment():
    reading = {name for name in SOURCES if re.search(r"os\.(environ|getenv)", read(name))}
    assert reading <= set(READS_ENVIRONMENT)


def test_only_backends_open_sessions():
    opening = {name for name in SOURCES if re.search(r"\bSession\(", read(name))}
    assert opening <= {"backends.tensorflow", "backends.ascend"}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_modules_stay_readable(module):
    lines = read(module).count("\n")
    assert lines <= 400, f"{module} has {lines} lines; look for the seam inside"


@pytest.mark.parametrize("script", ["train_keras.py", "evaluate.py", "finetune.py"])
def test_scripts_are_a_page(script):
    with open(os.path.join(ROOT, script), encoding="utf-8") as file:
        assert len(file.readlines()) <= 30
