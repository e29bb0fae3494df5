import subprocess
import sys

from tests.support.paths import ROOT

DIES = """
import faulthandler, os, sys
from densenet_keras.commands import worker

faulthandler.enable()
worker._write_stacks_to(sys.argv[1])
print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
os.abort()
"""


def test_a_fatal_signal_leaves_the_stacks_in_the_log_and_none_on_the_console(tmp_path):
    log = tmp_path / "rank_0.log"
    log.write_text("before\n")
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(log)], cwd=ROOT, stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode < 0
    assert done.stderr.splitlines() == [b"terminate called after throwing an instance of 'std::bad_alloc'"]
    assert log.read_text().startswith("before\n")
    assert "most recent call first" in log.read_text()
