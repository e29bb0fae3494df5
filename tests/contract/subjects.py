"""The backends that the contract suite examines. A new backend is one more entry in SUBJECTS."""

import os
import pathlib
from typing import Callable, Dict, NamedTuple

from tests.support.paths import ASCEND, ROOT


def _nothing(rank: int, size: int, directory: str) -> Dict[str, str]:
    return {}


class Subject(NamedTuple):
    """One backend under test.

    Attributes:
        name: as in the test ids.
        factory: `package.module:function`; function(config, topology) makes the backend. Called in the
            rank's own process, possibly before anything else there has imported TensorFlow.
        environment: variables that a launcher would give to one rank, from (rank, size, folder common to
            the ranks).
        one_scenario_a_process: whether a process of this backend can open one session only.
    """

    name: str
    factory: str
    environment: Callable[[int, int, str], Dict[str, str]] = _nothing
    one_scenario_a_process: bool = False


def tensorflow(config, topology):
    from densenet_keras.backends.tensorflow.backend import TensorFlowBackend

    return TensorFlowBackend(config.replace(backend="tensorflow"), topology)


def ascend(config, topology):
    """The NPU path on the stand-in for its adapter."""
    import dataclasses
    import os

    os.environ["SIMULATED_NPU_ADDRESSES"] = ",".join(topology.addresses)
    from densenet_keras.backends.ascend.backend import AscendBackend

    # Ranks on NPUs find each other by themselves: they are told no addresses.
    return AscendBackend(config.replace(backend="ascend"), dataclasses.replace(topology, addresses=()))


def _ascend_rank(rank: int, size: int, directory: str) -> Dict[str, str]:
    own = {"PYTHONPATH": ASCEND + os.pathsep + ROOT, "HOME": directory}
    if size == 1:
        return own
    table = str(pathlib.Path(directory) / "rank_table.json")
    return {**own, "RANK_ID": str(rank), "RANK_SIZE": str(size), "RANK_TABLE_FILE": table, "JOB_ID": "test"}


SUBJECTS = [
    Subject("tensorflow", f"{__name__}:tensorflow"),
    Subject("ascend", f"{__name__}:ascend", _ascend_rank),
]
