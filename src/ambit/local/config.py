"""What `ambit up` was asked for, as the cluster process reads it (`cluster.json` in the state directory)."""

from typing import Literal

import msgspec

from ambit.core.names import DEFAULT_TRUST_DOMAIN, ROOT_NAMESPACE
from ambit.local.layout import NodeAddresses, StateDirectory


class ClusterConfig(msgspec.Struct, frozen=True):
    """`regions` and `zones` give each node's topology labels, in order; shorter lists repeat their last entry.

    `mesh_config` is the text of the mesh's settings.

    `is_demo`: made by `ambit demo`, which may replace it without asking.
    """

    name: str
    nodes: int = 2
    gateway_api: Literal["standard", "experimental"] = "experimental"
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    root_namespace: str = ROOT_NAMESPACE
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    mesh_config: str = ""
    is_demo: bool = False

    @property
    def node_addresses(self) -> tuple[NodeAddresses, ...]:
        return tuple(NodeAddresses(index) for index in range(1, self.nodes + 1))

    def topology(self, node: NodeAddresses) -> dict[str, str]:
        """Labels `topology.kubernetes.io/region|zone` of a node; absent when nothing was asked for."""
        labels = {}
        for key, values in (("region", self.regions), ("zone", self.zones)):
            if values:
                labels[f"topology.kubernetes.io/{key}"] = values[min(node.index, len(values)) - 1]
        return labels


def read_config(state: StateDirectory) -> ClusterConfig:
    return msgspec.json.decode(state.cluster_config.read_bytes(), type=ClusterConfig)


def write_config(state: StateDirectory, config: ClusterConfig) -> None:
    state.cluster_config.write_bytes(msgspec.json.encode(config))
