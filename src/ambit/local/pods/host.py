"""What every pod's worker shares: the API, the network, the files, and what is known of namespaces, services
and images.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ambit.kube.client import Client
from ambit.local.fabric.interface import Fabric
from ambit.local.layout import SANDBOXES, NodeAddresses, StateDirectory
from ambit.local.pods.environment import ServiceLink
from ambit.local.pods.events import EventRecorder
from ambit.local.pods.images import ImageEntry


class Host(msgspec.Struct, frozen=True):
    """`hidden` and `readable` are those of `sandbox.private_view`."""

    client: Client
    fabric: Fabric
    state: StateDirectory
    nodes: Mapping[str, NodeAddresses]
    events: EventRecorder
    hidden: list[str]
    readable: list[str]
    namespace_labels: Callable[[str], Mapping[str, str]]
    services: Callable[[], tuple[ServiceLink, ...]]
    images: Callable[[], tuple[ImageEntry, ...]]
    sandboxes: Path = SANDBOXES

    def memory(self, sandbox: str) -> Path:
        """The sandbox's directory on the instance's tmpfs."""
        return self.sandboxes / sandbox

    def disk(self, uid: str) -> Path:
        """Where a pod's emptyDir volumes are."""
        return self.state.root / "pods" / uid
