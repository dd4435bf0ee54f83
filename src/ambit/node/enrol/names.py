"""DNS inside captured pods: one proxy per pod, over the mesh's state."""

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ambit.core.address import Address
from ambit.core.dns import Type
from ambit.core.errors import EnvironmentProblem
from ambit.node.dns.answer import Client, Settings
from ambit.node.dns.pod import PodDns
from ambit.node.enrol.pods import Pod
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.state.mesh import MeshState


class Question(NamedTuple):
    """How questions are counted: type, transport, and who asked."""

    type: str
    protocol: str
    forwarded: bool
    canonical_service: str
    canonical_revision: str


class MeshNames:
    """Starts and stops the DNS proxies of pods. Unknown names go to the nameservers of `resolv_conf`, the
    agent's own file, as ztunnel does; a pod's `dnsConfig` goes before it."""

    def __init__(self, state: MeshState, network: str, resolv_conf: Path, settings: Settings) -> None:
        self._state = state
        self._network = network
        self._resolv_conf = resolv_conf
        self._settings = settings
        self._proxies: dict[str, PodDns] = {}
        self.queries: Counter[Question] = Counter()
        """Questions so far."""

    def __len__(self) -> int:
        return len(self._proxies)

    async def start(self, sandbox: Sandbox, pod: Pod | None) -> None:
        """Raises EnvironmentProblem."""
        await self.stop(sandbox.uid)
        config = pod.spec.dns_config if pod is not None else None
        own = [ipaddress.ip_address(text) for text in config.nameservers] if config is not None else []
        proxy = PodDns(
            Path(sandbox.netns),
            Client(
                sandbox.namespace, self._network, sandbox.uid, config.searches if config is not None else ()
            ),
            self._state,
            [(address, 53) for address in own or nameservers(self._resolv_conf)],
            settings=self._settings,
            on_query=self._counting(sandbox),
        )
        try:
            await proxy.start()
        except OSError as problem:
            raise EnvironmentProblem(
                f"DNS of pod {sandbox.namespace}/{sandbox.name} cannot be served: {problem.strerror}"
            ) from problem
        self._proxies[sandbox.uid] = proxy

    async def stop(self, uid: str) -> None:
        proxy = self._proxies.pop(uid, None)
        if proxy is not None:
            await proxy.close()

    def _counting(self, sandbox: Sandbox) -> Callable[[int, bool, bool], None]:
        def count(kind: int, over_tcp: bool, forwarded: bool) -> None:
            workload = next(
                filter(None, (self._state.workload_by_address(self._network, a) for a in sandbox.addresses)),
                None,
            )
            question = Question(
                _type_name(kind),
                "tcp" if over_tcp else "udp",
                forwarded,
                workload.canonical_name if workload is not None else "",
                workload.canonical_revision if workload is not None else "",
            )
            self.queries[question] += 1

        return count


def _type_name(kind: int) -> str:
    """A label from a small set, whatever a client asks for."""
    try:
        return Type(kind).name
    except ValueError:
        return "other"


def nameservers(resolv_conf: Path) -> Sequence[Address]:
    """Addresses of the `nameserver` lines; none when the file cannot be read."""
    found: list[Address] = []
    with contextlib.suppress(OSError):
        for line in resolv_conf.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    found.append(ipaddress.ip_address(words[1]))
    return found
