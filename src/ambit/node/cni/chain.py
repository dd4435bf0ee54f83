"""Which CNI configuration a node uses, and the same with our plugin at its end. Pure.

Rules:
1. The container runtime takes the first valid file by name (`*.conf`, `*.conflist`, `*.json`, hidden ones as well);
   ours is named to be the first. The file of the network's own plugin is never touched.
2. Ours repeats the other's network under the same name, so that pods started before and after end alike.
3. Files in which our plugin occurs are not others' networks.

Why a file of our own and not a change of the other's: network plugins write theirs anew when they restart or are
upgraded, and then pods would start uncaptured until somebody repairs it. Source: CNI 1.1.0 section 1; containerd
`internal/cri`, go-cni `LoadConfigs` and libcni `ConfFiles`.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ambit.core.errors import AmbitError
from ambit.node.cni.runtime import PLUGIN

FILE = "00-ambit.conflist"
_ENDINGS = (".conf", ".conflist", ".json")


class PluginSettings(msgspec.Struct, frozen=True):
    """`socket` is the agent's, as the host names it; pods of `system_namespaces` start without the agent."""

    socket: str
    system_namespaces: tuple[str, ...] = ("kube-system",)

    def entry(self) -> dict[str, Any]:
        return {"type": PLUGIN, "socket": self.socket, "systemNamespaces": list(self.system_namespaces)}


class Primary(msgspec.Struct, frozen=True):
    """The network's own configuration: the file's name, and the list of plugins."""

    name: str
    network: dict[str, Any]


def is_configuration(name: str) -> bool:
    """Whether a container runtime reads a file of this name."""
    return name.endswith(_ENDINGS)


def primary(files: Mapping[str, bytes]) -> Primary | None:
    """The first valid one that is not ours; None when the network's plugin wrote none yet."""
    for name in sorted(files):
        if name == FILE or not is_configuration(name):
            continue
        network = _network(files[name])
        if network is not None:
            return Primary(name, network)
    return None


def chained(found: Primary, settings: PluginSettings) -> bytes:
    """Content of our file. Raises AmbitError when ours would not be the first."""
    if found.name < FILE:
        raise AmbitError(
            f"the container runtime reads the CNI configuration {found.name} before {FILE}: pods start uncaptured",
            f"rename {found.name} to a name that sorts after {FILE}",
        )
    plugins = [*found.network["plugins"], settings.entry()]
    return json.dumps({**found.network, "plugins": plugins}, indent=2).encode() + b"\n"


def _network(content: bytes) -> dict[str, Any] | None:
    try:
        read = json.loads(content)
    except ValueError:
        return None
    if not isinstance(read, dict) or not isinstance(read.get("name"), str):
        return None
    if "plugins" not in read:
        network = {"cniVersion": read.get("cniVersion", "0.3.1"), "name": read["name"], "plugins": [read]}
    else:
        network = read
    plugins = network["plugins"]
    if not isinstance(plugins, list) or not plugins:
        return None
    if not all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in plugins):
        return None
    return None if any(each["type"] == PLUGIN for each in plugins) else network
