"""Where an instance keeps its files, and the addresses it uses. Pure; nothing here touches the disk.

The numbers are those of `docs/design.md` section 14.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

RUN = Path("/run/ambit")
"""Inside the instance's mount namespace: a private tmpfs."""
NETNS = RUN / "netns"
SANDBOXES = RUN / "sandboxes"
NODES = RUN / "nodes"

FABRIC_V4 = ipaddress.IPv4Interface("172.30.0.1/16")
FABRIC_V6 = ipaddress.IPv6Interface("fd00:ac1e::1/64")
SERVICES_V4 = ipaddress.IPv4Network("10.96.0.0/16")
SERVICES_V6 = ipaddress.IPv6Network("fd00:10:96::/112")
BALANCERS_V4 = ipaddress.IPv4Network("172.30.1.0/24")
BALANCERS_V6 = ipaddress.IPv6Network("fd00:ac1e::1:0/112")
"""Addresses of load balancers, inside the fabric's networks."""
PODS_V4 = ipaddress.IPv4Network("10.244.0.0/16")
PODS_V6 = ipaddress.IPv6Network("fd00:10:244::/48")
OWN_NETWORKS: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (
    *(FABRIC_V4.network, SERVICES_V4, PODS_V4, ipaddress.IPv4Network("127.0.0.0/8")),
    *(FABRIC_V6.network, SERVICES_V6, PODS_V6, ipaddress.IPv6Network("::1/128")),
)
"""Whose addresses only the cluster itself gives away."""
KUBERNETES_SERVICE = ipaddress.IPv4Address("10.96.0.1")
DNS_SERVICE = ipaddress.IPv4Address("10.96.0.10")
API_PORT = 6443


class NodeAddresses(msgspec.Struct, frozen=True):
    """Addresses of the node with the given index, counted from 1."""

    index: int

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def v4(self) -> ipaddress.IPv4Address:
        return FABRIC_V4.ip + 9 + self.index

    @property
    def v6(self) -> ipaddress.IPv6Address:
        return FABRIC_V6.ip + 9 + self.index

    @property
    def pods_v4(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"10.244.{self.index}.0/24")

    @property
    def pods_v6(self) -> ipaddress.IPv6Network:
        return ipaddress.IPv6Network(f"fd00:10:244:{self.index:x}::/64")

    @property
    def run(self) -> Path:
        return NODES / self.name

    @property
    def netns(self) -> Path:
        return NETNS / self.name


class StateDirectory(msgspec.Struct, frozen=True):
    """Paths below one instance's state directory on the host."""

    root: Path

    @classmethod
    def of(cls, name: str, environment: Mapping[str, str] = os.environ) -> "StateDirectory":
        """`$AMBIT_STATE/<name>`, else the user's state directory (XDG)."""
        base = environment.get("AMBIT_STATE")
        if not base:
            home = environment.get("XDG_STATE_HOME") or os.path.join(
                os.path.expanduser("~"), ".local", "state"
            )
            base = os.path.join(home, "ambit")
        return cls(Path(base).absolute() / name)

    @property
    def instance(self) -> Path:
        return self.root / "instance.json"

    @property
    def cluster_config(self) -> Path:
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def database(self) -> Path:
        return self.root / "cluster.sqlite"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def pod_logs(self, namespace: str, pod: str, uid: str) -> Path:
        """Where a pod's logs are. A name at the limit is cut, since a directory's has 255 bytes; the uid is unique."""
        room = 255 - len(f"{namespace}__{uid}")
        return self.logs / "pods" / f"{namespace}_{pod[:room]}_{uid}"

    def node(self, name: str) -> Path:
        return self.root / "nodes" / name

    @property
    def host(self) -> Path:
        return self.root / "host"
