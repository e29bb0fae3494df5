"""How the session of an NPU rank ends, when its device does and when it does not."""

import threading

import pytest

from densenet_keras.backends.ascend import session as npu_session
from densenet_keras.errors import RunError

HANGS = 0.05  # seconds until a shut-down counts as one that hangs


class Device:
    """A session whose shut-down returns, fails or hangs; `log` is what was said and done, in order."""

    def __init__(self, log, behaviour):
        self.log, self.behaviour, self.released = log, behaviour, threading.Event()

    def run(self, operation):
        self.log.append("shut down")
        if self.behaviour == "hangs":
            self.released.wait()
        elif self.behaviour == "fails":
            raise RuntimeError("device 3 is lost")

    def close(self):
        self.log.append("closed")


@pytest.fixture
def log(monkeypatch):
    said = []
    for level in ("error", "warning"):
        monkeypatch.setattr(npu_session.logger, level, lambda text, *values: said.append(text % values))
    return said


def end(log, behaviour, failure=None):
    device = Device(log, behaviour)
    try:
        npu_session.close(device, None, failure, HANGS if behaviour == "hangs" else 60)
    finally:
        device.released.set()


def test_a_clean_end_says_nothing(log):
    end(log, "returns")
    assert log == ["shut down", "closed"]


@pytest.mark.parametrize(("behaviour", "after"), [
    ("returns", ["closed"]),
    ("fails", ["closed", "after the failure: the NPU did not shut down cleanly: device 3 is lost"]),
    ("hangs", ["after the failure: the NPU did not shut down within 0 s "
               "(DENSENET_KERAS_SHUTDOWN_SECONDS); see npu-smi info before the next run"]),
])  # fmt: skip
def test_the_reason_of_a_failure_is_said_before_the_device_is_shut_down(log, behaviour, after):
    end(log, behaviour, ValueError("a bad record"))
    assert log == ["failed, the NPU is shut down: ValueError: a bad record", "shut down", *after]


@pytest.mark.parametrize(("behaviour", "message"), [("fails", "device 3 is lost"), ("hangs", "within 0 s")])
def test_without_an_earlier_failure_it_is_the_failure(log, behaviour, message):
    with pytest.raises(RunError, match=message):
        end(log, behaviour)
