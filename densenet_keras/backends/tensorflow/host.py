"""The host side of CPU and GPU ranks; without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, MutableMapping

from densenet_keras.backends.host import Host
from densenet_keras.backends.tensorflow import memory

if TYPE_CHECKING:
    from densenet_keras.backends.base import Backend
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology


class TensorFlowHost(Host):
    """Stock TensorFlow needs nothing of the host but addresses for its ranks."""

    name = "tensorflow"

    def prepare_process(self, config: Config, environ: MutableMapping[str, str]) -> None:
        """See `Host.prepare_process`; the process of a user's own program is not a rank."""
        if config.device.fast_cpu is not False:
            memory.keep_freed_memory(environ)
            if config.device.recompute:
                memory.use_pools(environ)

    def create(self, config: Config, topology: Topology) -> Backend:
        """See `Host.create`."""
        from densenet_keras.backends.tensorflow.backend import TensorFlowBackend

        return TensorFlowBackend(config, topology)

    def create_for_plan(self, config: Config, topology: Topology) -> Backend:
        """See `Host.create_for_plan`; one rank, since only a real rank has peers."""
        return self.create(config.replace(rank_size=1), type(topology)())


HOST = TensorFlowHost()
