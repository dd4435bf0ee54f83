"""DNS inside captured pods: one proxy per pod, over the mesh's state."""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from ambit.core.address import Address
from ambit.core.dns import Type
from ambit.core.errors import EnvironmentProblem
from ambit.model.service import Service
from ambit.node.dns.answer import Client, Settings
from ambit.node.dns.names import Resolver, parse_resolv_conf, pod_resolver
from ambit.node.dns.pod import PodDns
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.state.mesh import MeshState

DURATIONS = (0.0005, 0.001, 0.01, 0.1, 1.0, 5.0)
"""Seconds; ztunnel's buckets."""
Destination: TypeAlias = tuple[Address, int]
MAX_PREPARED = 16
"""Destinations of one name: a name of hundreds of pods must not cost hundreds of entries."""


class Question(NamedTuple):
    """How questions are counted: type, transport, and who asked."""

    type: str
    protocol: str
    canonical_service: str
    canonical_revision: str


class Asked(msgspec.Struct):
    """How often a question was asked, and what became of those that went to a nameserver."""

    requests: int = 0
    forwarded: int = 0
    failed: int = 0
    seconds: float = 0.0
    by_duration: list[int] = msgspec.field(default_factory=lambda: [0] * len(DURATIONS))
    """How many took at most as long as each of DURATIONS."""

    def took(self, seconds: float, answered: bool) -> None:
        self.forwarded += 1
        self.failed += not answered
        self.seconds += seconds
        for index, most in enumerate(DURATIONS):
            self.by_duration[index] += seconds <= most


class MeshNames:
    """Starts and stops the DNS proxies of pods. Unknown names go to the nameservers of `resolv_conf`, the agent's own
    file, as ztunnel does, and to those of the pod's `dnsConfig` (`pod_resolver`). `prepare` hears what a pod is about
    to connect to; its name's answer waits a moment for what that returns."""

    def __init__(
        self,
        state: MeshState,
        network: str,
        resolv_conf: Path,
        settings: Settings,
        prepare: Callable[[Sandbox, Sequence[Destination]], Awaitable[object] | None] = lambda *_: None,
    ) -> None:
        self._state = state
        self._network = network
        self._resolv_conf = resolv_conf
        self._settings = settings
        self._prepare = prepare
        self._proxies: dict[str, PodDns] = {}
        self.queries: dict[Question, Asked] = {}
        """Questions so far."""

    def __len__(self) -> int:
        return len(self._proxies)

    async def start(self, sandbox: Sandbox) -> None:
        """Raises EnvironmentProblem."""
        await self.stop(sandbox.uid)
        resolver = self._resolver(sandbox)
        proxy = PodDns(
            Path(sandbox.netns),
            Client(sandbox.namespace, self._network, sandbox.uid, resolver.searches),
            self._state,
            [(address, 53) for address in resolver.nameservers],
            settings=self._settings,
            on_resolved=lambda service, found: self._prepare(sandbox, destinations(service, found)),
            on_query=lambda kind, over_tcp: self._count(sandbox, kind, over_tcp),
            on_forwarded=lambda kind, over_tcp, seconds, answered: self._asked(sandbox, kind, over_tcp).took(
                seconds, answered
            ),
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

    async def close(self) -> None:
        for uid in tuple(self._proxies):
            await self.stop(uid)

    def of(self, uid: str) -> PodDns | None:
        """The proxy of a captured pod; None when there is none."""
        return self._proxies.get(uid)

    def _resolver(self, sandbox: Sandbox) -> Resolver:
        try:
            node = parse_resolv_conf(self._resolv_conf.read_text())
        except OSError:
            node = Resolver()
        own = Resolver(tuple(map(ipaddress.ip_address, sandbox.nameservers)), sandbox.searches)
        return pod_resolver(sandbox.dns_policy, own, node, sandbox.namespace, self._settings.domain)

    def _count(self, sandbox: Sandbox, kind: int, over_tcp: bool) -> None:
        self._asked(sandbox, kind, over_tcp).requests += 1

    def _asked(self, sandbox: Sandbox, kind: int, over_tcp: bool) -> Asked:
        found = (self._state.workload_by_address(self._network, each) for each in sandbox.addresses)
        workload = next(filter(None, found), None)
        question = Question(
            _type_name(kind),
            "tcp" if over_tcp else "udp",
            workload.canonical_name if workload is not None else "",
            workload.canonical_revision if workload is not None else "",
        )
        return self.queries.setdefault(question, Asked())


def destinations(service: Service, addresses: Sequence[Address]) -> list[Destination]:
    """What is likely to be connected to after this service was resolved to these addresses: its own ones by the
    service's ports, those of pods (headless) by the ports behind them."""
    own = {virtual.address for virtual in service.addresses}
    found = [
        (address, port.service if address in own else port.target or port.service)
        for address in addresses
        for port in service.ports
    ]
    return found[:MAX_PREPARED]


def _type_name(kind: int) -> str:
    """A label from a small set, whatever a client asks for."""
    try:
        return Type(kind).name
    except ValueError:
        return "other"
