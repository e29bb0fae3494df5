"""Where the adapter keeps its native library."""

import simulated_npu

version = "v1.15.0"


def get_gen_ops():
    return simulated_npu.OPERATIONS
