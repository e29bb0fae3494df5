"""Failures of the adapter's documents, of its libraries and of a CPU run are told apart."""

import dataclasses
import re

import pytest

from densenet_keras.launch import diagnosis
from densenet_keras.launch.diagnosis import diagnose
from densenet_keras.settings.config import GROUPS

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
    ("Error while reading resource variable conv/kernel from Container: localhost. This could mean that the "
     "variable was uninitialized.", "uninitialised variable"),
    ("errors_impl.FailedPreconditionError: Table not initialized.", "lookup table"),
    ("Outputs num mismatched with inner outputs", "outputs"),
    ("F tensorflow/core/grappler/optimizers/memory_optimizer.cc:1234] Check failed", "memory optimizer"),
    ("Graph memory 33285996544 exceeds the limit of 31GB", "control flow memory"),
    ("No supported Ops kernel and engine are found for [foo], optype [Foo]", "unsupported operation"),
    ("101 steps in a row were skipped for overflow, more than --max_skipped_steps 100, at loss scale 1: the",
     "loss scale"),
    ("loss is nan at step 100; training has diverged", "not finite"),
    ("[GePlugin] Ge has already initialized, option precision_mode", "already initialised"),
    ("the loop was built as a/IterationOp instead of IterationOp, so it would run one step at a time",
     "steps in the loop"),
    ("global_step is 1 instead of 10", "steps in the loop"),
    ("ModuleNotFoundError: No module named 'npu_bridge'", "adapter not found"),
    ("libascendcl.so: cannot open shared object file: No such file", "adapter not found"),
    ("open /dev/davinci0 failed: Permission denied", "device node"),
    ("OSError: [Errno 28] No space left on device", "disk"),
    ("ResourceExhaustedError: OOM when allocating tensor with shape[32,256]", "memory"),
    ("E tensorflow/core/rpc: bind: Address already in use", "port in use"),
    ("DataLossError: corrupted record at 12345", "damaged records"),
    ("UnavailableError: Socket closed", "peer gone"),
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
