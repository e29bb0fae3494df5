"""Collective operations."""

from tensorflow.python.framework import ops

from npu_bridge.helper import helper

gen_hccl_ops = helper.get_gen_ops()

WORLD = "hccl_world_group"


def allreduce(tensor, reduction, fusion=1, fusion_id=-1, group=WORLD):
    return gen_hccl_ops.hcom_all_reduce(
        input=tensor, reduction=reduction, fusion=fusion, fusion_id=fusion_id, group=group
    )


def broadcast(tensor, root_rank, fusion=2, fusion_id=0, group=WORLD):
    return gen_hccl_ops.hcom_broadcast(
        input=tensor, fusion=fusion, fusion_id=fusion_id, group=group, root_rank=root_rank
    )


@ops.RegisterGradient("HcomAllReduce")
def _allreduce_grad(op, grad):
    return allreduce(grad, "sum", fusion=0)
