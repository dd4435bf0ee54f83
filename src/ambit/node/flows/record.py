"""Decision records: an entry joined with what the mesh knows about both ends. Pure."""

from enum import StrEnum

import msgspec

from ambit.core.address import Address, parse_host_port
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol, Workload
from ambit.node.flows.entry import SAME_NODE, TUNNEL, Entry
from ambit.plan import node_proxy
from ambit.plan.destinations import rule_name
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from ambit.policy.decide import ConnectionFacts, decide


class Reporter(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"


class End(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One end of a connection; empty fields are not known."""

    address: str
    workload: str = ""
    """Name of the pod."""
    workload_name: str = ""
    """Name of what owns the pod, as Istio's metrics have it."""
    namespace: str = ""
    identity: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    cluster: str = ""
    service: str = ""
    """`<namespace>/<hostname>` that was asked for; where only the pod's address is known, one that it serves."""


class Flow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One connection as one side of it reports it. `time` is when it began (seconds since 1970); bytes are
    `received` from client to server and `sent` from server to client."""

    time: float
    node: str
    reporter: Reporter
    source: End
    destination: End
    hop: str = ""
    """How it went on: tunnel, same-node, direct, refused."""
    decision: str = "allow"
    policy: str = ""
    error: str = ""
    received: int = 0
    sent: int = 0
    milliseconds: float = 0.0
    mutual_tls: bool = False
    """Both identities are verified (also on one node, where no TLS is needed)."""

    @property
    def failed(self) -> bool:
        return self.decision == "deny" or bool(self.error)


def flow(entry: Entry, view: MeshView, pods: LocalPods, settings: NodeSettings) -> tuple[Flow, ...]:
    """The records of an ended entry: one, or two when both pods are on this node and no other proxy reports."""
    pod = pods.by_key(entry.pod)
    if entry.kind == names.LOG_OUTBOUND:
        source = _local_end(entry.client, entry.pod, pod, view, settings)
        destination = _destination(entry, view)
        reported = _flow(entry, settings, Reporter.SOURCE, source, destination)
        if entry.route != SAME_NODE:
            return (reported,)
        return reported, msgspec.structs.replace(reported, reporter=Reporter.DESTINATION)
    destination = _local_end(entry.destination, entry.pod, pod, view, settings, is_server=True)
    if entry.kind == names.LOG_INBOUND:
        peer = _peer(entry, view, settings)
        return (_flow(entry, settings, Reporter.DESTINATION, peer, destination),)
    stranger = _stranger(entry.client, view, settings)
    return (
        _flow(_decided(entry, pod, view, settings), settings, Reporter.DESTINATION, stranger, destination),
    )


def _flow(entry: Entry, settings: NodeSettings, reporter: Reporter, source: End, destination: End) -> Flow:
    return Flow(
        time=entry.started,
        node=settings.node,
        reporter=reporter,
        source=source,
        destination=destination,
        hop=entry.route,
        decision="deny" if entry.denied else "allow",
        policy=entry.policy,
        error=entry.failure,
        received=entry.received,
        sent=entry.sent,
        milliseconds=round(entry.seconds * 1000, 3),
        mutual_tls=bool(source.identity and destination.identity) and entry.route in {TUNNEL, SAME_NODE},
    )


def _decided(entry: Entry, pod: LocalPod | None, view: MeshView, settings: NodeSettings) -> Entry:
    """Plaintext that was refused at accept time: Envoy's entry has no rule, so the same decision names it."""
    if pod is None or not entry.failure or entry.sent:
        return entry
    workload = node_proxy.workload_of(pod, view, settings)
    try:
        client, _ = parse_host_port(entry.client)
        address, port = parse_host_port(entry.destination)
    except ValueError:
        return entry
    policies, unknown = view.policies_for(workload) if workload is not None else ((), (pod.key,))
    decision = decide(policies, ConnectionFacts(client, address, port), unknown)
    if decision.allowed:
        return entry
    return msgspec.structs.replace(
        entry, denied=True, policy=rule_name(decision), failure=decision.reason.value
    )


def _local_end(
    text: str,
    key: str,
    pod: LocalPod | None,
    view: MeshView,
    settings: NodeSettings,
    *,
    is_server: bool = False,
) -> End:
    if pod is None:
        namespace, _, rest = key.partition("/")
        return End(text, workload=rest.partition("/")[0], namespace=namespace)
    workload = node_proxy.workload_of(pod, view, settings)
    if workload is not None:
        return _end(text, workload, _served(workload, text) if is_server else "")
    return End(text, workload=pod.name, namespace=pod.namespace, identity=pod.identity.uri)


def _destination(entry: Entry, view: MeshView) -> End:
    workload = view.workload(entry.workload) if entry.workload else None
    text = entry.target or entry.destination
    if workload is None:
        return End(text, identity=entry.identity, service=entry.service)
    return _end(text, workload, entry.service or _served(workload, text))


def _served(workload: Workload, text: str) -> str:
    """The service that a connection to an address of the pod most likely meant: one with that target port,
    else the first (ztunnel: `guess_inbound_service`)."""
    if len(workload.services) < 2:
        return next(iter(workload.services), "")
    port = text.rpartition(":")[2]
    return min(
        workload.services,
        key=lambda name: (all(str(each.target) != port for each in workload.services[name]), name),
    )


def _peer(entry: Entry, view: MeshView, settings: NodeSettings) -> End:
    """The verified identity goes before what the table says about the address."""
    found = _stranger(entry.client, view, settings)
    if entry.identity and found.identity != entry.identity:
        try:
            identity = Identity.parse(entry.identity)
        except ValueError:
            return End(entry.client, identity=entry.identity)
        return End(entry.client, namespace=identity.namespace, identity=entry.identity)
    return found


def _stranger(text: str, view: MeshView, settings: NodeSettings) -> End:
    address = _parsed(text)
    workload = view.workload_by_address(settings.network, address) if address is not None else None
    if workload is None:
        return End(text)
    found = _end(text, workload)
    return found if workload.tunnel is TunnelProtocol.HBONE else msgspec.structs.replace(found, identity="")


def _end(text: str, workload: Workload, service: str = "") -> End:
    return End(
        text,
        workload=workload.name,
        workload_name=workload.workload_name or workload.name,
        namespace=workload.namespace,
        identity=workload.identity.uri,
        canonical_service=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        cluster=workload.cluster_id,
        service=service,
    )


def _parsed(text: str) -> Address | None:
    try:
        return parse_host_port(text)[0]
    except ValueError:
        return None
