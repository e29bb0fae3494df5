"""Ranks and groups, known once the device system is up."""

import simulated_npu


def _checked(value, what):
    if not simulated_npu.is_up:
        raise ValueError(f"get {what} error. ret[4]")
    return value


def get_rank_id(group="hccl_world_group"):
    return _checked(simulated_npu.rank(), "rank id")


def get_rank_size(group="hccl_world_group"):
    return _checked(simulated_npu.size(), "rank size")


def get_local_rank_id(group="hccl_world_group"):
    return _checked(simulated_npu.rank() % 8, "local rank id")


def get_local_rank_size(group="hccl_world_group"):
    return _checked(min(simulated_npu.size(), 8), "local rank size")


def get_world_rank_from_group_rank(group, group_rank_id):
    return _checked(group_rank_id, "world rank")


def get_group_rank_from_world_rank(world_rank_id, group):
    return _checked(world_rank_id, "group rank")


def create_group(group, rank_num, rank_ids):
    _checked(None, "group")


def destroy_group(group):
    _checked(None, "group")
