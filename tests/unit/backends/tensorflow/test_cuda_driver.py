"""Looking for GPUs: nothing is said where nobody would expect one, everything else is."""

import ctypes
import os
import subprocess
import sys

import pytest

from densenet_keras.backends.tensorflow.backend import cuda_driver
from tests.support.paths import ROOT

START = """
import warnings
warnings.simplefilter("ignore")
from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
import tensorflow as tf
backend = TensorFlowBackend(Config().replace(intra_op_threads=1, data_threads=1), Topology())
with backend.session(tf.Graph()):
    print("session is open")
"""


def test_a_machine_without_a_driver_is_no_error():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has a CUDA driver")
    done = subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
    )
    assert done.stdout == b"session is open\n"
    assert b"cuInit" not in done.stderr


def test_other_lines_are_shown_after_the_body(capfd):
    with cuda_driver.without_lines(b"cuInit"):
        os.write(2, b"before\nE failed call to cuInit: 303\nafter\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "before\nafter\n"


def test_lines_are_shown_if_the_body_fails(capfd):
    def fail():
        with cuda_driver.without_lines(b"cuInit"):
            os.write(2, b"a reason\n")
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert capfd.readouterr().err == "a reason\n"
    os.write(2, b"still connected\n")
    assert capfd.readouterr().err == "still connected\n"


@pytest.mark.parametrize(("status", "is_expected"), [(0, True), (999, True), (100, False), (34, False)])
def test_a_driver_that_does_not_start_is_a_reason_to_say_so(monkeypatch, status, is_expected):
    class Driver:
        def cuInit(self, flags):
            return status

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert cuda_driver._is_expected() == is_expected
