"""The shell scripts, the Dockerfile and the cluster manifests call the commands as they are."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from densenet_keras import schedule
from densenet_keras.backends.ascend import job_table, loop_plan, rank_table
from densenet_keras.backends.ascend.machine import Machine
from densenet_keras.backends.ascend.rank_environment import complete_environment, rank_environments
from densenet_keras.commands import main as cli
from densenet_keras.settings import config
from densenet_keras.topology import Topology
from tests.support.paths import ROOT

SCRIPTS = os.path.join(ROOT, "scripts")
SHELL_SCRIPTS = sorted(name for name in os.listdir(SCRIPTS) if name.endswith((".sh", ".sbatch")))


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def run(name, *arguments, cwd, **environ):
    return subprocess.run(
        [os.path.join(SCRIPTS, name), *arguments],
        cwd=str(cwd),
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def recorder(tmp_path):
    """A PYTHON that prints its arguments and DEVICE_ID as JSON and ends with code 7."""
    return executable(
        tmp_path / "python",
        f"#!{sys.executable}\nimport json, os, sys\n"
        'print(json.dumps([os.environ.get("DEVICE_ID"), *sys.argv[1:]]))\nsys.exit(7)\n',
    )


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_scripts_are_valid_shell_and_may_be_run(name):
    path = os.path.join(SCRIPTS, name)
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK) or name.startswith("_")


COMMANDS = {
    "run_1p.sh": (
        "train_keras.py",
        config.TRAIN,
        {
            "rank_size": 1,
            "max_train_steps": 100,
            "mode": "train",
            "log_dir": "./model_1p",
            "display_every": 10,
        },
    ),
    "train_1p.sh": ("train_keras.py", config.TRAIN, {"rank_size": 1, "log_name": "densenet121_1p.log"}),
    "run_8p.sh": (
        "train_keras.py",
        config.TRAIN,
        {
            "rank_size": 8,
            "max_epochs": 150,
            "epochs_between_evals": 5,
            "lr": 0.1,
            "mode": "train_and_evaluate",
            "log_dir": "./model_8p",
            "log_name": "densenet121_8p.log",
            "rank_table": "",
            "batch_size": 32,
        },
    ),
    "train_8p.sh": ("train_keras.py", config.TRAIN, {"rank_size": 8, "T_max": 150}),
    "test.sh": (
        "evaluate.py",
        config.EVALUATE,
        {"rank_size": 1, "eval_dir": "./model_8p", "log_name": "eval_densenet121.log"},
    ),
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_script_is_its_command_with_the_originals_settings(name, tmp_path, recorder):
    program, command, expected = COMMANDS[name]
    process = run(name, cwd=tmp_path, PYTHON=recorder)
    assert process.returncode == 7, process.stderr
    device, called, *arguments = json.loads(process.stdout)
    assert called == os.path.join(ROOT, program)
    assert device is None
    parsed = cli.parse(command, arguments)
    for setting, value in expected.items():
        assert getattr(getattr(parsed, config.group_of(setting)), setting) == value
    assert parsed.data.data_dir == "/opt/npu/slimImagenet"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_flags_given_to_a_script_go_before_its_own(name, tmp_path, recorder):
    process = run(
        name, "--data_dir", "/my data", "--log_dir=x y", cwd=tmp_path, PYTHON=recorder, DATA_DIR="/elsewhere"
    )
    _, _, *arguments = json.loads(process.stdout)
    assert arguments[-3:] == ["--data_dir", "/my data", "--log_dir=x y"]
    parsed = cli.parse(COMMANDS[name][1], arguments)
    assert (parsed.data.data_dir, parsed.run.log_dir) == ("/my data", "x y")


def test_the_device_of_a_single_rank_is_the_first_argument(tmp_path, recorder):
    process = run("train_1p.sh", "3", "--seed", "1", cwd=tmp_path, PYTHON=recorder)
    device, _, *arguments = json.loads(process.stdout)
    assert device == "3"
    assert arguments[-2:] == ["--seed", "1"]


@pytest.mark.parametrize("name", ["run_1p.sh", "run_8p.sh", "test.sh"])
def test_the_real_commands_exit_code_comes_back(name, tmp_path):
    process = run(name, "--data_dir", str(tmp_path / "none"), cwd=tmp_path, PYTHON=sys.executable)
    assert process.returncode == 2, process.stderr
    assert str(tmp_path / "none") in process.stderr or "--eval_dir ./model_8p" in process.stderr


def test_the_example_table_is_a_sound_one_that_nothing_uses():
    rank_table.load(os.path.join(SCRIPTS, "8p.json")).check(8)
    for name in SHELL_SCRIPTS:
        with open(os.path.join(SCRIPTS, name)) as file:
            code = "\n".join(line for line in file if not line.startswith("#"))
        assert "8p.json" not in code


# Docker


@pytest.fixture
def host(tmp_path):
    """The parts of an Ascend server's file system that docker_start.sh looks at."""
    root = tmp_path / "host"
    for path in ("dev", "usr/local/Ascend/driver", "usr/local/bin", "var/log/npu", "etc"):
        (root / path).mkdir(parents=True)
    nodes = [f"davinci{n}" for n in range(8)] + ["davinci_manager", "devmm_svm", "hisi_hdc"]
    for path in [*(f"dev/{node}" for node in nodes), "usr/local/bin/npu-smi", "etc/hccn.conf"]:
        (root / path).write_text("")
    (tmp_path / "data").mkdir()
    return root


def docker(host, tmp_path, *arguments, **environ):
    return run("docker_start.sh", *arguments, cwd=tmp_path, HOST_ROOT=str(host), **environ)


def test_the_container_gets_devices_driver_logs_and_folders(host, tmp_path):
    process = docker(host, tmp_path, "--dry-run", "image:tag", "data", "run", "python3.7", "a b")
    assert process.returncode == 0, process.stderr
    for number in range(8):
        assert f"--device=/dev/davinci{number} " in process.stdout
    for node in ("davinci_manager", "devmm_svm", "hisi_hdc"):
        assert f"--device=/dev/{node} " in process.stdout
    for path in ("/usr/local/Ascend/driver", "/usr/local/bin/npu-smi", "/etc/hccn.conf"):
        assert f"-v {path}:{path}:ro " in process.stdout
    assert "-v /var/log/npu:/var/log/npu " in process.stdout
    data, folder = tmp_path / "data", tmp_path / "run"
    assert f"-v {data}:{data}:ro -v {folder}:{folder} -w {folder} -e HOME={folder} " in process.stdout
    assert f"--user {os.getuid()}:{os.getgid()} --group-add " in process.stdout
    assert process.stdout.endswith("image:tag python3.7 a\\ b\n")
    assert "add-ons" not in process.stdout  # does not exist on this host
    assert not folder.exists()


def test_some_devices_only(host, tmp_path):
    process = docker(host, tmp_path, "--dry-run", "--devices", "4,5", "image", "data", "run")
    assert re.findall(r"--device=/dev/(davinci\d)", process.stdout) == ["davinci4", "davinci5"]


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        (["dev/davinci5"], ["--devices", "4,5"], "/dev/davinci5 does not exist"),
        ([f"dev/davinci{n}" for n in range(8)], [], "no /dev/davinciN on this machine"),
        (["dev/hisi_hdc"], [], "/dev/hisi_hdc does not exist"),
        (["usr/local/Ascend/driver"], [], "install the Ascend driver"),
        (["../data"], [], "data folder data does not exist"),
        ([], ["--devices", "a"], "no list of numbers"),
        ([], ["--nothing"], "usage:"),
    ],
)
def test_what_the_container_would_lack_is_named(host, tmp_path, missing, arguments, message):
    for path in missing:
        path = host / path
        shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
    process = docker(host, tmp_path, "--dry-run", *arguments, "image", "data", "run")
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stdout == ""


def test_dockers_exit_code_comes_back(host, tmp_path):
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "docker", '#!/bin/sh\necho "$@"\nexit 5\n')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    process = docker(host, tmp_path, "image", "data", "run", PATH=path)
    assert process.returncode == 5
    assert process.stdout.startswith("run --rm ")
    assert (tmp_path / "run").is_dir()


def test_the_image_installs_nothing_that_its_base_has():
    with open(os.path.join(ROOT, "Dockerfile")) as file:
        text = re.sub(r"(?m)^#.*\n", "", file.read()).replace("\\\n", " ")
    assert re.match(r"ARG BASE_IMAGE=\S*ascend-tensorflow\S*\nFROM \$\{BASE_IMAGE\}\n", text)
    installs = re.findall(r"pip install ([^\n&|]*)", text)
    assert [words.split() for words in installs] == [["--no-cache-dir", "--no-deps", "tqdm"]]
    assert "requirements" not in text
    assert "apt" not in text
    for source in re.findall(r"(?m)^COPY (.*) \S+$", text):
        for name in source.split():
            assert os.path.exists(os.path.join(ROOT, name))
    entry = re.search(r'ENTRYPOINT \["/opt/densenet_keras/(.*)"\]', text).group(1)
    assert os.access(os.path.join(ROOT, entry), os.X_OK)


def test_the_entry_point_passes_the_command_and_its_exit_code(tmp_path):
    process = run(
        "container_entry.sh",
        "sh",
        "-c",
        'echo "$0 $LD_LIBRARY_PATH"; exit 3',
        "a b",
        cwd=tmp_path,
        LD_LIBRARY_PATH="/mine",
    )
    assert process.returncode == 3
    assert process.stdout.startswith("a b /usr/local/Ascend/driver/lib64:")
    assert process.stdout.endswith(":/mine\n")


# Volcano


@pytest.fixture(scope="module")
def volcano():
    with open(os.path.join(SCRIPTS, "volcano_job.yaml")) as file:
        documents = {document["kind"]: document for document in yaml.safe_load_all(file)}
    assert set(documents) == {"ConfigMap", "Job"}
    return documents


def container_of(volcano):
    (task,) = volcano["Job"]["spec"]["tasks"]
    (container,) = task["template"]["spec"]["containers"]
    return task, container


def test_volcano_names_belong_together(volcano):
    table, job = volcano["ConfigMap"], volcano["Job"]
    task, container = container_of(volcano)
    name = job["metadata"]["name"]
    assert table["metadata"]["name"] == f"rings-config-{name}"
    assert table["metadata"]["namespace"] == job["metadata"]["namespace"]
    labels = [part["metadata"]["labels"]["ring-controller.atlas"] for part in (table, job, task["template"])]
    assert labels == ["ascend-910"] * 3
    pod = task["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["ascend-910-config"]["configMap"]["name"] == table["metadata"]["name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert os.path.join(mounts["ascend-910-config"], *table["data"]) == job_table.MOUNTED_TABLE
    rule = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert rule["labelSelector"]["matchExpressions"][0]["values"] == [name]


def test_volcano_counts_agree_with_the_command(volcano):
    task, container = container_of(volcano)
    assert volcano["Job"]["spec"]["minAvailable"] == task["replicas"]
    resources = container["resources"]
    devices = resources["requests"]["huawei.com/Ascend910"]
    assert resources["limits"]["huawei.com/Ascend910"] == devices
    program, *arguments = container["args"][1:]
    assert program == "/opt/densenet_keras/train_keras.py"
    parsed = cli.parse(config.TRAIN, arguments)
    assert parsed.device.rank_size == task["replicas"] * devices
    assert is_loops_only(parsed)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert parsed.data.data_dir in mounts
    assert os.path.dirname(parsed.run.log_dir) in mounts


def test_a_volcano_pod_finds_its_ranks(volcano, tmp_path, monkeypatch):
    _, container = container_of(volcano)
    initial = tmp_path / "hccl.json"
    initial.write_text(volcano["ConfigMap"]["data"]["hccl.json"])
    assert rank_table.load(str(initial)).status == "initializing"
    # What the controller makes of it for two such pods.
    servers = [
        rank_table.from_hccn_conf(
            "".join(f"address_{d}=192.0.2.{8 * s + d}\n" for d in range(8)),
            range(8),
            f"198.51.100.{s}",
            first_rank=8 * s,
        ).servers[0]
        for s in range(1, -1, -1)
    ]
    rank_table.write(rank_table.RankTable(servers=tuple(servers), source=""), str(initial))
    monkeypatch.setattr(job_table, "MOUNTED_TABLE", str(initial))
    sources = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]}
    facts = {
        "status.hostIP": "198.51.100.1",
        "metadata.name": "densenet121-worker-1",
        "metadata.annotations['huawei.com/Ascend910']": "Ascend910-0,Ascend910-1",
    }
    environ = {name: facts[path] for name, path in sources.items()}
    parsed = cli.parse(config.TRAIN, container["args"][2:]).replace(rank_size=16, log_dir=str(tmp_path))
    ranks = rank_environments(parsed, environ, machine=Machine("densenet121-worker-1", ("10.1.2.3",)))
    assert [rank["RANK_ID"] for rank in ranks] == [str(n) for n in range(8, 16)]


# Slurm


def test_the_batch_file_starts_one_task_for_each_npu(tmp_path):
    with open(os.path.join(SCRIPTS, "slurm_8p.sbatch")) as file:
        options = dict(re.findall(r"(?m)^#SBATCH --([a-z-]+)=(\S+)", file.read()))
    assert options["ntasks-per-node"] == "8"
    assert options["distribution"] == "block"  # ranks count through the nodes in the table's order
    assert int(options["cpus-per-task"]) > 1
    name, seconds = options["signal"].split("@")
    assert name == "TERM"  # to every task, not to the batch shell alone
    assert int(seconds) > 60  # reliability.md: a loop and a save


def is_loops_only(parsed):
    """Whether an NPU never leaves the loop for a single step of ImageNet's 150 epochs."""
    plan = schedule.plan(parsed, 1281167, 50000)
    chosen = loop_plan.choose(plan, 0)
    assert plan.total_steps == 150 * plan.steps_per_epoch
    return chosen.single_steps == 0 and chosen.loops == plan.total_steps // 834


def test_the_recipe_of_eight_ranks_is_loops_only(tmp_path, recorder):
    process = run("run_8p.sh", "--backend", "ascend", cwd=tmp_path, PYTHON=recorder)
    assert is_loops_only(cli.parse(config.TRAIN, json.loads(process.stdout)[2:]))


STAND_INS = {
    # srun: one process, in the environment of the last task; the NIC files as two nodes would copy them.
    "srun": """#!/bin/bash
case "$*" in
  *"/etc/hccn.conf"*)
    for node in 1 2; do
      for device in 0 1 2 3 4 5 6 7; do echo "address_$device=192.0.2.$((10 * node + device))"; done \\
        >"${@: -1}/node$node"
    done ;;
  *)
    while [[ $1 == --* ]]; do shift; done
    export SLURM_PROCID=15 SLURM_STEP_ID=1 SLURM_STEP_NUM_TASKS=16 SLURM_LOCALID=7 SLURM_NODEID=1
    export SLURM_STEP_TASKS_PER_NODE='8(x2)'
    exec "$@" ;;
esac
""",
    "scontrol": '#!/bin/bash\n[[ $* == "show hostnames node[1-2]" ]] && printf "node1\\nnode2\\n"\n',
    "getent": '#!/bin/bash\necho "198.51.100.${2#node} STREAM $2"\n',
}


def test_the_batch_file_gives_every_task_its_rank(tmp_path):
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        executable(tmp_path / "bin" / name, text)
    python = executable(
        tmp_path / "python",
        f'#!/bin/bash\n[[ $1 == -m ]] && exec {sys.executable} "$@"\n'
        f'exec {sys.executable} -c "import json, os, sys; '
        'print(json.dumps([dict(os.environ), sys.argv[1:]])); sys.exit(7)" "$@"\n',
    )
    process = run(
        "slurm_8p.sbatch",
        "--seed",
        "3",
        cwd=tmp_path,
        PYTHON=python,
        LOG_DIR=str(tmp_path / "log dir"),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=ROOT,
        SLURM_JOB_ID="4711",
        SLURM_JOB_NUM_NODES="2",
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_CPUS_PER_TASK="24",
    )
    assert process.returncode == 7, process.stderr
    environ, (program, *arguments) = json.loads(process.stdout.splitlines()[-1])
    assert program == os.path.join(ROOT, "train_keras.py")
    parsed = cli.parse(config.TRAIN, arguments)
    assert (parsed.data.seed, parsed.device.rank_size, parsed.device.backend) == (3, 16, "ascend")
    assert is_loops_only(parsed)
    place = Topology.from_environment(environ, parsed)
    assert (place.rank, place.size, place.local_rank, place.local_size) == (15, 16, 7, 8)
    rank_table.load(parsed.ascend.rank_table).check(16)
    added = complete_environment(parsed, environ, machine=Machine("node2", ("198.51.100.2",)))
    assert (added["RANK_ID"], added["DEVICE_ID"], environ["JOB_ID"]) == ("15", "7", "slurm-4711")
