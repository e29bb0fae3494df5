"""The host side of NPU ranks: their environment, their settings, what a dry run says; without TensorFlow."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from densenet_keras.backends.ascend import adapter, chips, failures, loop_plan, rank_environment, rank_table
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.backends.confirmation import Backing
from densenet_keras.backends.host import Host
from densenet_keras.errors import UsageError
from densenet_keras.settings.programs import Tool

if TYPE_CHECKING:
    from densenet_keras.backends.base import Backend
    from densenet_keras.schedule import RunPlan
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology


class AscendHost(Host):
    """An Ascend server: rank tables, device ids, the adapter's options and failures."""

    name = "ascend"
    needs_addresses = False  # HCCL has the rank table
    failures = failures.FAILURES
    # Chosen by the plan: a chunk that is no loop costs a second graph and a session.run for each step.
    defaults = {"iterations_per_loop": 0, "save_checkpoints_steps": 0}
    tools = {
        "rank_table": Tool("backends.ascend.table_command", "write the rank table of several Ascend servers")
    }

    def why_unavailable(self) -> str:
        """See `Host.why_unavailable`."""
        return "" if adapter.is_available() else f"the Ascend adapter ({adapter.PACKAGE}) is not installed"

    def check(self, config: Config) -> None:
        """See `Host.check`."""
        npu_flags.validate(config)

    def notes(self, config: Config) -> List[str]:
        """See `Host.notes`."""
        return npu_flags.notes(config)

    def local_ranks(self, config: Config) -> int:
        """See `Host.local_ranks`: servers of a common table have equal numbers."""
        if config.ascend.rank_table:
            with contextlib.suppress(UsageError):  # which the start of the ranks is to say
                servers = rank_table.load(config.ascend.rank_table).servers
                return max((len(server.devices) for server in servers), default=config.device.rank_size)
        return min(config.device.rank_size, chips.of(config).devices_per_server)

    def ranks_here(self, config: Config, environ: Mapping[str, str]) -> List[int]:
        """See `Host.ranks_here`: with a common rank table those of this server."""
        return rank_environment.ranks_here(config, environ)

    def rank_environments(
        self, config: Config, base_env: Mapping[str, str]
    ) -> Optional[List[Dict[str, str]]]:
        """See `Host.rank_environments`."""
        return rank_environment.rank_environments(config, base_env)

    def complete_environment(self, config: Config, environ: Mapping[str, str]) -> Dict[str, str]:
        """See `Host.complete_environment`."""
        return rank_environment.complete_environment(config, environ)

    def describe_session(
        self, config: Config, plan: Optional[RunPlan], environ: Mapping[str, str]
    ) -> List[str]:
        """Every session option, the loss scale and the gradient split."""
        npu_flags.validate(config)
        length = loop_plan.choose(plan, 0).length if plan is not None else 1
        options = npu_options.session_options(config, 0, length, environ)
        lines = [f"NPU: {chips.of(config).title}, --npu {config.ascend.npu}"]
        lines += [f"{key} ({field}) = {value}" for key, (field, value) in options.items()]
        if config.device.rank_size > 1 and any(
            re.search("(rank|npu)_0", str(value)) for _, value in options.values()
        ):
            lines.append("folders of the other ranks end in their own number")
        split = npu_flags.gradient_split(config)
        scale = npu_flags.loss_scale(config)
        lines.append(f"loss scale: {scale.kind}" + (f" {scale.value:g}" if scale.kind == "fixed" else ""))
        fused = f"{split.kind} {split.values}" if split else "by default"
        lines.append(f"gradient split: {fused}")
        return lines

    def describe_steps(self, plan: RunPlan) -> List[str]:
        """The loop length, and how often the host is involved."""
        chosen = loop_plan.choose(plan, 0)
        return [loop_plan.explain(chosen, plan), f"session runs: {chosen.session_runs}"]

    def describe_memory(
        self,
        graphs: Sequence[Tuple[str, Sequence[Any]]],
        variables: List[Any],
        config: Config,
        plan: Optional[RunPlan],
    ) -> List[str]:
        """See `memory`."""
        from densenet_keras.backends.ascend import memory

        return memory.describe(graphs, variables, config, plan)

    def confirmation(self) -> Backing:
        """See `Host.confirmation`: everything that docs/ascend.md leaves to a device."""
        from densenet_keras.backends.ascend import confirm

        return confirm.BACKING

    def create(self, config: Config, topology: Topology) -> Backend:
        """See `Host.create`."""
        from densenet_keras.backends.ascend.backend import AscendBackend

        return AscendBackend(config, topology)

    def create_for_plan(self, config: Config, topology: Topology) -> Backend:
        """See `Host.create_for_plan`: without gradient exchange and overflow status, the adapter's own."""
        from densenet_keras.backends.ascend import stand_ins
        from densenet_keras.backends.ascend.backend import AscendBackend

        return AscendBackend(config, topology, stand_ins.adapter_parts())


HOST = AscendHost()
