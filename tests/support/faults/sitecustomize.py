"""Found by every Python that has this folder in PYTHONPATH: arms the fault that the environment describes."""

from tests.support import faulty_disk

faulty_disk.arm_from_environment()
