"""Segments of fused gradients."""

import simulated_npu


def _set(kind, values, valid):
    if not simulated_npu.is_up:
        raise ValueError("hcom is not initialised")
    if not 1 <= len(values) <= 8 or not all(isinstance(value, int) for value in values) or not valid:
        raise ValueError(f"split strategy by {kind} {values}")
    simulated_npu.split_strategy = (kind, list(values))
    simulated_npu.history.append(("split", kind))


def set_split_strategy_by_idx(idxList, group="hccl_world_group"):
    _set("idx", idxList, list(idxList) == sorted(set(idxList)))


def set_split_strategy_by_size(dataSizeList, group="hccl_world_group"):
    _set("size", dataSizeList, sum(dataSizeList) == 100)
