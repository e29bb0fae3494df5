"""The commands on the NPU path, over the stand-in for the adapter; and the plan of a run without either."""

import json
import os
import signal

import numpy as np
import pytest

from densenet_keras.data.order import TrainOrder
from densenet_keras.data.records import open_split
from densenet_keras.launch.launcher import reserved_ports
from tests.support import commands, records
from tests.support.paths import ASCEND, ROOT

TINY = ("--model", "densenet_tiny", "--num_classes", 10, "--intra_op_threads", 1)
RANKS = 2


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return records.write_noise(tmp_path_factory.mktemp("data"), train=52, validation=21)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    devices = [
        {"device_id": str(rank), "device_ip": f"192.168.1.{10 + rank}", "rank_id": str(rank)}
        for rank in range(RANKS)
    ]
    servers = [{"server_id": "127.0.0.1", "device": devices}]
    path = tmp_path_factory.mktemp("table") / "rank_table.json"
    path.write_text(json.dumps(
        {"status": "completed", "version": "1.0", "server_count": "1", "server_list": servers}
    ))  # fmt: skip
    return path


def ascend(script, table, *arguments, **more):
    """Runs a command on two simulated NPUs."""
    path = os.pathsep.join([ASCEND, *filter(None, [os.environ.get("PYTHONPATH")])])
    with reserved_ports(RANKS) as ports:
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        return commands.run(
            script, "--backend", "ascend", "--rank_size", RANKS, "--rank_table", table, *arguments,
            cwd=str(table.parent), HOME=str(table.parent), PYTHONPATH=path,
            SIMULATED_NPU_ADDRESSES=addresses, **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def runs(data_dir, table, tmp_path_factory):
    """One run on the CPU in a go; another one begun on the CPU and continued on two NPUs."""
    folder = tmp_path_factory.mktemp("runs")
    shared = ("--data_dir", data_dir, "--epochs_between_evals", 1, "--iterations_per_loop", 4,
              "--save_checkpoints_steps", 5, "--T_max", 3, "--lr", 0.01)  # fmt: skip
    cpu = ("--backend", "tensorflow", "--rank_size", RANKS)
    for name, epochs in (("whole", 2), ("continued", 1)):
        commands.run("train_keras.py", *cpu, *TINY, *shared, "--batch_size", 4, "--max_epochs", epochs,
                     "--log_dir", folder / name)  # fmt: skip
    said = ascend("train_keras.py", table, *TINY, *shared, "--batch_size", 4, "--max_epochs", 2,
                  "--log_dir", folder / "continued", "--loss_scale", "dynamic",
                  SIMULATED_NPU_GENERATION="newer")  # fmt: skip
    (folder / "said").write_text(said)
    return folder


def test_a_run_begun_on_the_cpu_goes_on_where_it_was(runs):
    whole, _ = commands.metrics(runs / "whole")
    continued, _ = commands.metrics(runs / "continued")
    assert continued[-1]["step"] == whole[-1]["step"] == 12
    assert continued[-1]["learning_rate"] == pytest.approx(whole[-1]["learning_rate"])
    assert continued[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.02)
    assert continued[-1]["skipped_steps"] == 0


def test_each_graph_that_is_compiled_is_announced(runs):
    said = (runs / "said").read_text()
    for what in ("first step", "evaluation"):
        assert said.count(f"{what}: compiling, this may take minutes") == 1


def test_npu_checkpoints_hold_the_cpus_variables_and_the_loss_scale(runs):
    whole = commands.variables(runs / "whole" / "model.ckpt-12")
    continued = commands.variables(runs / "continued" / "model.ckpt-12")
    assert set(continued) - set(whole) == {"loss_scale", "good_steps", "bad_steps"}
    assert not set(whole) - set(continued)


def test_two_ranks_leave_the_compilers_files_in_two_folders(runs, table):
    folders = [runs / "continued" / "rank_logs" / f"npu_{rank}" for rank in range(RANKS)]
    processes = [{file.read_text() for file in folder.glob("kernel_meta/*")} for folder in folders]
    assert [len(own) for own in processes] == [1, 1]
    assert processes[0] != processes[1]
    for folder, (process,) in zip(folders, processes):
        assert [path.parent.name for path in folder.glob("FE/*/fusion_result.json")] == [process]
    # The cache of compiled operators is common to all, and where the next start looks for it.
    cached = (table.parent / "atc_data" / "te_conv2d_1.o").read_text().split()
    assert {*processes[0], *processes[1]} <= {*cached}
    assert not (table.parent / "kernel_meta").exists()


def test_both_backends_evaluate_an_npu_checkpoint_alike(runs, data_dir, table, tmp_path):
    shared = ("--data_dir", data_dir, "--eval_dir", runs / "continued" / "model.ckpt-12", "--batch_size", 4)
    commands.run("evaluate.py", "--backend", "tensorflow", *shared, "--log_dir", tmp_path / "cpu",
                 "--json", tmp_path / "cpu.json")  # fmt: skip
    ascend("evaluate.py", table, *shared, "--log_dir", tmp_path / "npu", "--json", tmp_path / "npu.json")
    (cpu,), (npu,) = (json.loads((tmp_path / name).read_text()) for name in ("cpu.json", "npu.json"))
    assert cpu["images"] == npu["images"] == 21
    assert (cpu["top1"], cpu["top5"]) == (npu["top1"], npu["top5"])
    assert npu["loss"] == pytest.approx(cpu["loss"], rel=1e-5)


def test_a_loss_scaled_run_counts_what_it_skips_and_finetunes(runs, data_dir, table, tmp_path):
    output = ascend(
        "finetune.py", table, "--data_dir", data_dir, "--restore_path", runs / "continued", "--batch_size", 4,
        "--log_dir", tmp_path / "finetuned", "--max_train_steps", 6, "--mode", "train", "--loss_scale", 16,
        "--iterations_per_loop", 3, "--statistics_average", "save", SIMULATED_NPU_OVERFLOW="2",
    )  # fmt: skip
    assert "skipped for overflow" in output
    lines, _ = commands.metrics(tmp_path / "finetuned")
    assert [line["step"] for line in lines] == [3, 6]
    assert [line["skipped_steps"] for line in lines] == [1, 1]


def test_the_first_step_of_a_loop_that_went_wrong_is_named(tmp_path):
    """The host sees the loss of the last step alone; the device counts."""
    images, batch, white = 40, 4, 21
    payloads = records.noise_payloads(images)
    payloads[white] = records.example(records.encode(np.full((24, 20, 3), 255, np.uint8)), 1)
    records.write_split(tmp_path / "data", "train", payloads, shards=1)
    order = TrainOrder(0, images, batch, 0, 1)
    bad = next(step + 1 for step in range(10) if white in order.batch(step).records)
    assert 1 < bad < 10
    output = commands.run(
        "train_keras.py", "--backend", "ascend", *TINY, "--mode", "train", "--data_dir", tmp_path / "data",
        "--batch_size", batch, "--log_dir", tmp_path / "run", "--max_train_steps", 10,
        "--iterations_per_loop", 10,
        "--callbacks", "tests.support.poison:create", code=1, PYTHONPATH=os.pathsep.join([ASCEND, ROOT]),
        cwd=str(tmp_path), HOME=str(tmp_path),
    )  # fmt: skip
    assert "loop length 10: 1 loops" in output
    assert f"loss is nan since step {bad}, whose pictures {tmp_path}/run/nonfinite.jsonl lists. " in output
    (event,) = map(json.loads, (tmp_path / "run" / "nonfinite.jsonl").read_text().splitlines())
    assert event["step"] == bad
    assert len(event["pictures"]) == batch
    assert any(f"record {white} " in picture for picture in event["pictures"])


def test_two_servers_train_into_one_folder_and_start_again_together(data_dir, tmp_path):
    """Each server's command starts its own rank of the common table; one of the ranks is killed."""
    servers = [
        {"server_id": f"node{rank}", "device": [
            {"device_id": "0", "device_ip": f"192.168.1.{10 + rank}", "rank_id": str(rank)}
        ]}
        for rank in range(RANKS)
    ]  # fmt: skip
    common = {"status": "completed", "version": "1.0", "server_count": "2", "server_list": servers}
    (tmp_path / "table.json").write_text(json.dumps(common))
    run = tmp_path / "run"
    with reserved_ports(RANKS) as ports:
        commands_of_servers = [
            commands.start(
                "train_keras.py", "--backend", "ascend", *TINY, "--rank_size", RANKS, "--mode", "train",
                "--rank_table", tmp_path / "table.json", "--data_dir", data_dir, "--log_dir", run,
                "--batch_size", 4, "--iterations_per_loop", 4, "--save_checkpoints_steps", 20,
                "--max_train_steps", 160, "--max_restarts", 2,
                DENSENET_KERAS_SERVER_ID=server["server_id"], SIMULATED_NPU_GENERATION="newer",
                SIMULATED_NPU_ADDRESSES=",".join(f"127.0.0.1:{port}" for port in ports),
                HOME=str(tmp_path), PYTHONPATH=os.pathsep.join([ASCEND, ROOT]),
            )
            for server in servers
        ]  # fmt: skip
        commands.wait_for(lambda: list(run.glob("model.ckpt-*.index")), commands_of_servers[1])
        os.kill(commands.ranks_of(commands_of_servers[1])[0], signal.SIGKILL)
        said = [each.communicate(timeout=240)[0].decode("utf-8", "replace") for each in commands_of_servers]
    assert [each.returncode for each in commands_of_servers] == [0, 0], said
    assert "rank 1 failed: killed by signal 9" in said[1]
    assert all("restart 1 of 2 in 2 s, from the checkpoint of step " in text for text in said)
    assert (run / "model.ckpt-160.index").exists()


def test_a_run_gives_up_when_all_steps_overflow(data_dir, table, tmp_path):
    output = ascend(
        "train_keras.py", table, *TINY, "--data_dir", data_dir, "--batch_size", 4, "--log_dir", tmp_path,
        "--max_train_steps", 6, "--mode", "train", "--loss_scale", 16, "--max_skipped_steps", 2,
        code=1, SIMULATED_NPU_OVERFLOW="1,2,3,4,5,6",
    )  # fmt: skip
    assert "in a row were skipped for overflow" in output
    assert "--overflow_debug" in output


def trained_on_a_record_that_went_bad(folder, **environ):
    """What a run says whose input fails after the start; it must fail."""
    data_dir = records.write_noise(folder / "data", train=8, validation=8)
    open_split(data_dir, "train")  # builds the index, which the run trusts
    shard = os.path.join(data_dir, "train-00000-of-00002")
    times = os.stat(shard)
    with open(shard, "r+b") as file:
        file.seek(40)
        file.write(b"\xff\xff\xff\xff")
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    return commands.run(
        "train_keras.py", "--backend", "ascend", "--rank_size", 1, *TINY, "--data_dir", data_dir,
        "--batch_size", 2, "--log_dir", folder / "run", "--max_train_steps", 8, "--mode", "train", code=1,
        cwd=str(folder), HOME=str(folder), PYTHONPATH=ASCEND, **environ,
    )  # fmt: skip


@pytest.mark.parametrize("generation", ["older", "newer"])
def test_a_record_that_went_bad_is_named_though_the_device_does_not_say_it(generation, tmp_path):
    """The older adapter aborts, the newer hands over the engine's text; the record is in the log alone."""
    output = trained_on_a_record_that_went_bad(tmp_path, SIMULATED_NPU_GENERATION=generation)
    assert "the input failed: " in output
    assert "train-00000-of-00002" in output.rpartition("the input failed: ")[2]
    assert "intact when the index was built" in output.rpartition("the input failed: ")[2]
    if generation == "older":
        assert "rank 0 failed: killed by signal 6 (SIGABRT)" in output
        assert "the first error in its log: E tf_adapter/kernels/host_queue_dataset_op.cc" in output
    else:
        assert "failed, the NPU is shut down: InternalError: GeOp1_0GEOP::::DoRunAsync Failed" in output


def test_a_shut_down_that_hangs_does_not_swallow_the_reason(tmp_path):
    output = trained_on_a_record_that_went_bad(
        tmp_path, SIMULATED_NPU_GENERATION="newer", SIMULATED_NPU_SHUTDOWN="hang",
        DENSENET_KERAS_SHUTDOWN_SECONDS="1",
    )  # fmt: skip
    in_order = [
        "failed, the NPU is shut down: InternalError: GeOp1_0GEOP::::DoRunAsync Failed",
        "after the failure: the NPU did not shut down within 1 s (DENSENET_KERAS_SHUTDOWN_SECONDS); see",
        "the input failed: ",
        "train-00000-of-00002",
    ]
    places = [output.rindex(text) for text in in_order]
    assert places == sorted(places)


def test_a_shut_down_that_hangs_after_training_is_said_and_loses_nothing(data_dir, tmp_path):
    output = commands.run(
        "train_keras.py", "--backend", "ascend", "--rank_size", 1, *TINY, "--data_dir", data_dir,
        "--batch_size", 2, "--log_dir", tmp_path, "--max_train_steps", 2, "--mode", "train", code=1,
        cwd=str(tmp_path), HOME=str(tmp_path), PYTHONPATH=ASCEND, SIMULATED_NPU_SHUTDOWN="hang",
        DENSENET_KERAS_SHUTDOWN_SECONDS="1",
    )  # fmt: skip
    assert "error: the NPU did not shut down within 1 s" in output
    assert commands.variables(tmp_path / "model.ckpt-2")


def test_the_plan_of_imagenet_on_eight_npus_is_sound(tmp_path):
    log_dir = tmp_path / "run"
    output = commands.run(
        "train_keras.py", "--backend", "ascend", "--dry_run", "--rank_size", 8, "--max_epochs", 150,
        "--log_dir", log_dir, "--loss_scale", "dynamic", cwd=str(tmp_path), ASCEND_OPP_PATH="",
    )  # fmt: skip
    assert "iterations_per_loop (i) = 834" in output
    assert all(f"RANK_ID={rank} " in output for rank in range(8))
    assert "loop length 834: 900 loops" in output
    assert "session runs: 900" in output
    assert "single steps" not in output
    assert "none that the device lacks" in output
    assert "predicted memory" in output
    assert "further graphs, each with memory of its own: evaluation" in output
    assert not log_dir.exists()


def test_a_plan_that_cannot_work_says_all_that_is_wrong(tmp_path):
    output = commands.run(
        "train_keras.py", "--backend", "ascend", "--dry_run", "--rank_size", 3, *TINY, "--mode", "train",
        "--log_dir", tmp_path / "run", "--batch_size", 8, "--gradient_split", "idx:3,9", code=2,
        cwd=str(tmp_path),
    )  # fmt: skip
    assert "--rank_size 3 on one server" in output
    assert "--gradient_split idx:3,9 ends with 9, but this graph has" in output
