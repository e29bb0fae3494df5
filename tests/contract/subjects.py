"""The backends that the contract suite examines. A new backend is one more entry in SUBJECTS."""

import pathlib
from typing import Callable, Dict, NamedTuple

HERE = pathlib.Path(__file__).resolve()


def _nothing(rank: int, size: int, directory: str) -> Dict[str, str]:
    return {}


class Subject(NamedTuple):
    """One backend under test.

    Attributes:
        name: as in the test ids.
        factory: `/path/of/file.py:function`; function(config, topology) makes the backend. Called in the
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
    from densenet_keras.backends.tensorflow import TensorFlowBackend

    return TensorFlowBackend(config.replace(backend="tensorflow"), topology)


SUBJECTS = [Subject("tensorflow", f"{HERE}:tensorflow")]
