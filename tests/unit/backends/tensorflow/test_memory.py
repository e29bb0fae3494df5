"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

from densenet_keras.backends.tensorflow import memory
from densenet_keras.backends.tensorflow.host import HOST
from densenet_keras.settings.config import Config
from tests.support.paths import ROOT

# Blocks above glibc's mmap threshold, taken and freed again and again; one holds the end of the heap.
PAGE_FAULTS = """
import os, resource, sys
from densenet_keras.backends.tensorflow.host import HOST
from densenet_keras.settings.config import Config

HOST.prepare_process(Config().replace(fast_cpu=sys.argv[1] == "fast"), os.environ)
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytes(bytearray(40 << 20)) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    done = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS, mode], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=60
    )
    return int(done.stdout)


def test_a_rank_asks_the_system_for_memory_once_and_plain_operations_each_time():
    assert page_faults("fast") < 1000 < page_faults("plain")


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_users_own_are_kept(name, monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("mallopt was called"))
    assert memory.keep_freed_memory({name: "1"}) is False


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.keep_freed_memory({}) is False
    HOST.prepare_process(Config().replace(fast_cpu=True), {})


@pytest.mark.parametrize(
    ("recompute", "fast_cpu", "pools"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
def test_recomputing_takes_memory_from_pools(recompute, fast_cpu, pools):
    environ = {"MALLOC_ARENA_MAX": "1"}  # leaves the C library of this process alone
    HOST.prepare_process(Config().replace(fast_cpu=fast_cpu, recompute=recompute), environ)
    assert len(environ) == 1 + pools


def test_a_choice_of_allocator_of_the_users_own_is_kept():
    environ = {"MALLOC_ARENA_MAX": "1", "TF_CPU_ALLOCATOR_USE_BFC": "false"}
    HOST.prepare_process(Config().replace(fast_cpu=True, recompute=True), environ)
    assert environ["TF_CPU_ALLOCATOR_USE_BFC"] == "false"
