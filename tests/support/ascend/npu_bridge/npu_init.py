"""What `from npu_bridge.npu_init import *` gives in both generations."""
# ruff: noqa: F401

import os

from hccl.manage.api import (
    create_group,
    destroy_group,
    get_group_rank_from_world_rank,
    get_local_rank_id,
    get_local_rank_size,
    get_rank_id,
    get_rank_size,
    get_world_rank_from_group_rank,
)
from hccl.split.api import set_split_strategy_by_idx, set_split_strategy_by_size
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.client import session

from npu_bridge.estimator import npu_ops
from npu_bridge.estimator.npu import npu_scope, util
from npu_bridge.estimator.npu.npu_loss_scale_manager import (
    ExponentialUpdateLossScaleManager,
    FixedLossScaleManager,
)
from npu_bridge.estimator.npu.npu_loss_scale_optimizer import NPULossScaleOptimizer
from npu_bridge.estimator.npu.npu_optimizer import NPUDistributedOptimizer
from npu_bridge.hccl import hccl_ops

if os.environ.get("SIMULATED_NPU_GENERATION") == "newer":

    def npu_config_proto(config_proto=None, job_start_file=None):
        """A name that only the newer generation has."""
        return config_proto

    def _on_the_npu(begin):
        def __init__(self, target="", graph=None, config=None):
            config = config or config_pb2.ConfigProto()
            carriers = config.graph_options.rewrite_options.custom_optimizers
            if not any(carrier.name == "NpuOptimizer" for carrier in carriers):
                carriers.add(name="NpuOptimizer")
            begin(self, target, graph, config)

        return __init__

    # Every session of the process, whatever it is for.
    for _kind in (session.Session, session.InteractiveSession):
        _kind.__init__ = _on_the_npu(_kind.__init__)
