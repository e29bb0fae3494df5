"""Failures of the adapter's documents, of its libraries and of a CPU run are told apart."""

import dataclasses
import re

import pytest

from densenet_keras.backends.ascend import option_keys
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.launch import diagnosis
from densenet_keras.launch.diagnosis import diagnose, first_error
from densenet_keras.settings.config import GROUPS, Config

# A line as it would stand in a log, the failure it must be taken for.
LINES = [
    ("ValueError: get rank id error. ret[1]", "too early"),
    ("[HCCL] hcom has not been initialized", "too early"),
    ("AttributeError: 'NoneType' object has no attribute '_rank_size'", "JOB_ID"),
    ("Call hcom_bind_model failed, ret 5", "rank table"),
    ("EI0004: The ranktable is invalid", "rank table"),
    ("ra rdev init failed, ret[-17]", "NIC address"),
    ("EI0014: device ip", "NIC address"),
    ("EI0006: Getting socket times out", "connection time-out"),
    ("wait socket establish timeout, role[0]", "connection time-out"),
    ("EI0002: The wait execution of the Notify register times out", "notify time-out"),
    ("notify wait timeout", "notify time-out"),
    ("EI0005: parameters of the operator differ", "unequal collectives"),
    ("EI0019: the port is bound", "previous job"),
    ("socket bind failed, port 16666 already in use", "previous job"),
    ("EI0011: memory", "device memory"),
    ("runtime result = 207001", "device memory"),
    ("E30008: AI CPU operator execution time out.", "input too slow"),
    ("tensorflow.python.framework.errors_impl.OutOfRangeError: End of sequence", "end of data"),
    ("F iterator_per_loop only support 1 when using OneShotIterator", "one-shot iterator"),
    ("F iterator_per_loop should be int and must >= 1", "loop length"),
    ("[GEOP] GEOP::::DoRunAsync Failed".replace("Failed", "failed"), "graph failed"),
    ("GE add graph failed, graph id 11", "graph failed"),
    ("Placeholder not support", "placeholder"),
    (
        "Error while reading resource variable conv/kernel from Container: localhost. This could mean that "
        "the variable was uninitialized.",
        "uninitialised variable",
    ),
    ("errors_impl.FailedPreconditionError: Table not initialized.", "lookup table"),
    ("Outputs num mismatched with inner outputs", "outputs"),
    ("F tensorflow/core/grappler/optimizers/memory_optimizer.cc:1234] Check failed", "memory optimizer"),
    ("Graph memory 33285996544 exceeds the limit of 31GB", "control flow memory"),
    ("No supported Ops kernel and engine are found for [foo], optype [Foo]", "unsupported operation"),
    (
        "101 steps in a row were skipped for overflow, more than --max_skipped_steps 100, at loss scale 1:",
        "loss scale",
    ),
    ("loss is nan at step 100; training has diverged", "not finite"),
    ("[GePlugin] Ge has already initialized, option precision_mode", "already initialised"),
    (
        "the loop was built as a/IterationOp instead of IterationOp, so it would run one step at a time",
        "steps in the loop",
    ),
    ("global_step is 1 instead of 10", "steps in the loop"),
    ("ModuleNotFoundError: No module named 'npu_bridge'", "adapter not found"),
    ("libascendcl.so: cannot open shared object file: No such file", "adapter not found"),
    ("open /dev/davinci0 failed: Permission denied", "device node"),
    ("OSError: [Errno 28] No space left on device", "disk"),
    ("ResourceExhaustedError: OOM when allocating tensor with shape[32,256]", "memory"),
    ("E tensorflow/core/rpc: bind: Address already in use", "port in use"),
    ("DataLossError: corrupted record at 12345", "damaged records"),
    ("UnavailableError: Socket closed", "peer gone"),
    ("EI0001: Value 7 for environment variable HCCL_CONNECT_TIMEOUT is invalid.", "environment variable"),
    ("EI0003: Failed to verify parameters of operator HcomAllReduce", "collective argument"),
    ("EI0007: Failed to allocate resource notify", "communication resources"),
    ("EI0008: The cann-hccl versions are inconsistent.", "library versions"),
    ("EI0009: Device 3 transport init error.", "link"),
    ("EI0010: P2P communication failed.", "device to device"),
    ("EI0012: SDMA memory copy task exception occurred.", "copy between devices"),
    ("EI0013: An error CQE occurred during operator execution.", "network between devices"),
    ("EI0017: Config device_ip is missing in the ranktable file.", "rank table"),
    ("EI0020: Failed to enable listening for the NPU network adapter socket.", "previous job"),
    (
        "F tf_adapter/util/ge_plugin.cc:207] [GePlugin] Initialize ge failed, ret : 1343225857",
        "start of the device",
    ),
    ("E39999 TsdOpen failed. devId=0, tdt error=31", "start of the device"),
    (
        "F tf_adapter/util/ge_plugin.cc:199] [GePlugin] Tdt host init failed, tdt error code : 3",
        "transfer queue",
    ),
    ("EZ3002: Optype [Foo] of Ops kernel [AIcoreEngine] is unsupported.", "unsupported operation"),
    ("E40021: Failed to compile Op [Conv2D1].", "operator compiler"),
    ("EL0004: Failed to allocate memory.", "driver memory"),
    ("E39999: Inner Error!", "device CPU kernel"),
    ("EE9999: Inner Error!", "inner error"),
    ("EZ9999: Inner Error!", "inner error"),
    ("E19999: Inner Error!", "inner error"),
    ("F tf_adapter/kernels/geop_npu.cc:743] GeOp1_0GEOP::::DoRunAsync Failed", "graph failed"),
    ("F [GEOP] call ge session RunGraphAsync Failed, kernel:GeOp1_0", "graph failed"),
]


@pytest.mark.parametrize(("line", "name"), LINES)
def test_each_message_is_taken_for_its_failure(line, name):
    (expected,) = [failure.advice for failure in diagnosis.failures() if failure.name == name]
    assert diagnose(f"step:     1  loss: 6.9\n{line}\nTraceback\n") == expected


def test_every_failure_has_a_message_that_finds_it():
    assert {failure.name for failure in diagnosis.failures()} == {name for _, name in LINES}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DoRunAsync failed\nEI0006 timeout\nEI0011 out of memory", "device memory"),
        ("UnavailableError\nEI0006: socket\nra rdev init failed ret[-17]", "NIC address"),
        ("EI0002\nOSError: No space left on device\n", "disk"),
        ("GEOP::DoRunAsync failed\nE30008", "input too slow"),
    ],
)
def test_the_cause_goes_before_its_consequences(text, name):
    (expected,) = [failure.advice for failure in diagnosis.failures() if failure.name == name]
    assert diagnose(text) == expected


@pytest.mark.parametrize("change", [str.upper, str.lower])
def test_case_does_not_count(change):
    text = "Initialize ge failed"
    assert diagnose(change(text)) == diagnose(text) is not None


RECORD = "train-00000-of-00002, record 7: payload is damaged"
QUEUE_ERROR = (
    "2026-01-01 10:00:00.000001: E tf_adapter/kernels/host_queue_dataset_op.cc:223] Failed to get tensor "
    f"data, Status:Unknown: BadRecord: {RECORD}"
)


def test_a_record_that_only_the_log_names_is_named():
    aborted = f"{QUEUE_ERROR}\nTraceback (most recent call last):\nF a.cc:743] GEOP::::DoRunAsync Failed\n"
    assert diagnose(aborted) == f"the input failed: {RECORD}"
    assert diagnose(f"{aborted}error: {RECORD}\n") is None  # the rank has said it


def test_the_first_error_of_a_library_is_found():
    harmless = "2026-01-01 10:00:00.000000: E tensorflow/stream_executor/cuda/cuda_driver.cc:318] failed\n"
    later = "2026-01-01 10:00:00.000002: F tf_adapter/kernels/geop_npu.cc:743] GEOP::::DoRunAsync Failed\n"
    assert first_error(f"step: 1\n{harmless}{QUEUE_ERROR}\n{later}") == QUEUE_ERROR
    assert first_error("E19999: Inner\n[ERROR] RUNTIME(1)model execute error") == "E19999: Inner"
    assert first_error(f"step: 1\n{harmless}Error in a callback\n") == ""


def losses(*values):
    return "".join(
        f"step:{step:6d}  epoch:  1.0  FPS:  100.0  loss:{value:6.3f}  total_loss: 7.000  lr:0.10000\n"
        for step, value in enumerate(values)
    )


def test_a_loss_that_never_moves_is_a_symptom():
    assert "zero on the device" in diagnose(losses(*[6.908] * 5))
    assert diagnose(losses(*[6.908] * 4)) is None
    assert diagnose(losses(6.908, 6.908, 6.907, 6.908, 6.908)) is None


@pytest.mark.parametrize("text", ["", "step: 10 loss: 6.9\nTraceback\nKeyError: 'x'\n", losses(3.0, 2.0)])
def test_an_unknown_failure_is_left_alone(text):
    assert diagnose(text) is None


def test_flags_in_advice_exist():
    known = {f.name for group in GROUPS.values() for f in dataclasses.fields(group)}
    for failure in diagnosis.failures():
        named = set(re.findall(r"--([a-z][A-Za-z_]*)", failure.advice))
        assert named <= known, failure.name


def test_options_in_advice_are_taken():
    for failure in diagnosis.failures():
        refused = [
            key for key in option_keys.REFUSED if "_" in key and re.search(rf"\b{key}\b", failure.advice)
        ]
        assert refused == [], failure.name
    ((size, more),) = re.findall(
        r"--graph_memory_max_size (\S+) --npu_option (\S+)\. ",
        " ".join(failure.advice for failure in diagnosis.failures()),
    )
    given = Config().replace(graph_memory_max_size=size, npu_option=(more,), npu="910")
    npu_options.session_options(given, 0)
