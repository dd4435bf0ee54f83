"""Decision records: a report joined with what the mesh knows about both ends. Pure.

Who is who is looked up when a report comes, not when somebody asks: by then the address may be another pod's. Records
of connections that differ in numbers only share everything else (`Connection`).
"""

import ipaddress
from collections.abc import Iterator

import msgspec

from ambit.agent.record import End, Flow, Reporter, peer
from ambit.core.address import Address, parse_host_port
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol, Workload
from ambit.node.flows.entry import SAME_NODE, TUNNEL, About
from ambit.plan.node import at_pod, node_proxy
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from ambit.policy.decide import ConnectionFacts, decide, rule_name


class Connection(msgspec.Struct, frozen=True, gc=False):
    """An ended connection: numbers, and `flows` that lack them. `started` in nanoseconds since 1970, `port` is the
    client's. Thousands are kept, so this is what they do not share."""

    flows: tuple[Flow, ...]
    port: str
    started: int
    milliseconds: float
    received: int
    sent: int
    trace: bytes = b""
    """As the client's side named it."""

    def records(self) -> Iterator[Flow]:
        """Complete records."""
        for each in self.flows:
            source = msgspec.structs.replace(each.source, address=f"{each.source.address}:{self.port}")
            yield msgspec.structs.replace(
                each,
                time=self.started / 1e9,
                source=source,
                received=self.received,
                sent=self.sent,
                milliseconds=self.milliseconds,
                trace=f"{each.trace}{self.started:019d}" if each.trace else self.trace.hex(),
            )


def flows(
    about: About, view: MeshView, pods: LocalPods, settings: NodeSettings, *, is_silent: bool = False
) -> tuple[Flow, ...]:
    """What records about such connections have in common: one, or two when both pods are on this node and no other
    proxy reports. The source's address lacks the port. `is_silent`: the server sent nothing."""
    pod = pods.by_key(about.pod)
    if about.kind == names.LOG_OUTBOUND:
        source = local_end(about.client, about.pod, pod, view, settings)
        destination = _destination(about, view)
        reported = _flow(about, settings, Reporter.SOURCE, source, destination)
        if about.route != SAME_NODE:
            return (reported,)
        identity = pod.identity if pod is not None else None
        trial = _dry_run(
            about, about.target or about.destination, view.workload(about.workload), identity, view
        )
        return reported, msgspec.structs.replace(reported, reporter=Reporter.DESTINATION, dry_run=trial)
    destination = local_end(
        about.destination, about.pod, pod, view, settings, is_server=True, called=about.called
    )
    if about.kind == names.LOG_INBOUND:
        source = client_end(about.client, about.identity, about.baggage, view, settings)
        return (_flow(about, settings, Reporter.DESTINATION, source, destination),)
    if is_silent:
        about = _decided(about, pod, view, settings)
    workload = node_proxy.workload_of(pod, view, settings) if pod is not None else None
    about = msgspec.structs.replace(about, dry_run=_dry_run(about, about.destination, workload, None, view))
    stranger = _stranger(about.client, view, settings)
    return (_flow(about, settings, Reporter.DESTINATION, stranger, destination),)


def denied_now(about: About, view: MeshView, pods: LocalPods) -> str | None:
    """The rule by which the server of a tunnel would refuse such a connection of a pod of this node; None when it would
    not, or nobody here knows."""
    pod, workload = pods.by_key(about.pod), view.workload(about.workload)
    if pod is None or workload is None:
        return None
    try:
        client = address_of(about.client)
        address, port = parse_host_port(about.target or about.destination)
    except ValueError:
        return None
    decision = at_pod.decide_here(workload, ConnectionFacts(client, address, port, pod.identity), view)
    return None if decision.allowed else rule_name(decision)


def _flow(about: About, settings: NodeSettings, reporter: Reporter, source: End, destination: End) -> Flow:
    return Flow(
        time=0.0,
        node=settings.node,
        reporter=reporter,
        source=source,
        destination=destination,
        hop=about.route,
        decision="deny" if about.denied else "allow",
        policy=about.policy,
        dry_run=about.dry_run,
        error=about.failure,
        trace=names.trace_prefix(about.pod)
        if about.kind == names.LOG_OUTBOUND and about.route == TUNNEL
        else "",
        mutual_tls=bool(source.identity and destination.identity) and about.route in {TUNNEL, SAME_NODE},
    )


def _decided(about: About, pod: LocalPod | None, view: MeshView, settings: NodeSettings) -> About:
    """Plaintext that was refused at accept time: Envoy's line has no rule, so the same decision names it."""
    if pod is None or not about.failure:
        return about
    workload = node_proxy.workload_of(pod, view, settings)
    try:
        client = address_of(about.client)
        address, port = parse_host_port(about.destination)
    except ValueError:
        return about
    facts = ConnectionFacts(client, address, port)
    here = at_pod.decide_here
    decision = here(workload, facts, view) if workload is not None else decide((), facts, (pod.key,))
    if decision.allowed:
        return about
    return msgspec.structs.replace(
        about, denied=True, policy=rule_name(decision), failure=decision.reason.value
    )


def _dry_run(
    about: About, destination: str, workload: Workload | None, identity: Identity | None, view: MeshView
) -> str:
    """The rule of dry-run policies that would have denied a connection which was allowed, where Envoy does not tell."""
    if workload is None or about.denied or about.failure:
        return ""
    policies, unknown = at_pod.policies_for(workload, view)
    if not any(policy.dry_run for policy in policies):
        return ""
    try:
        client = address_of(about.client)
        address, port = parse_host_port(destination)
    except ValueError:
        return ""
    decision = decide(policies, ConnectionFacts(client, address, port, identity), unknown)
    trial = decision.dry_run
    return rule_name(trial) if trial is not None and decision.allowed and not trial.allowed else ""


def local_end(
    text: str,
    key: str,
    pod: LocalPod | None,
    view: MeshView,
    settings: NodeSettings,
    *,
    is_server: bool = False,
    called: str = "",
) -> End:
    """A pod of this node, whose key this is, at an address with port; as a server with the service that it serves."""
    if pod is None:
        namespace, _, rest = key.partition("/")
        return End(text, workload=rest.partition("/")[0], namespace=namespace)
    workload = node_proxy.workload_of(pod, view, settings)
    if workload is not None:
        return _end(text, workload, _served(workload, text, called) if is_server else "")
    return End(text, workload=pod.name, namespace=pod.namespace, identity=pod.identity.uri)


def _destination(about: About, view: MeshView) -> End:
    text = about.target or about.destination
    return endpoint_end(text, about.workload, about.identity, about.service, view)


def endpoint_end(text: str, uid: str, identity: str, service: str, view: MeshView) -> End:
    """The workload of this uid as a server at an address with port; where nobody knows it, what was said of it."""
    workload = view.workload(uid) if uid else None
    if workload is None:
        return End(text, identity=identity, service=service)
    return _end(text, workload, service or _served(workload, text))


def _served(workload: Workload, text: str, called: str = "") -> str:
    """The service that a connection to an address of the pod most likely meant: the one that the client `called` if it
    is the pod's, one with that target port, else the first (ztunnel: `guess_inbound_service`)."""
    if len(workload.services) < 2:
        return next(iter(workload.services), "")
    port = text.rpartition(":")[2]
    return min(
        workload.services,
        key=lambda name: (
            name.partition("/")[2] != called,
            all(str(each.target) != port for each in workload.services[name]),
            name,
        ),
    )


def client_end(client: str, uri: str, baggage: str, view: MeshView, settings: NodeSettings) -> End:
    """Who called: the verified identity goes before what the table says about the address."""
    found = _stranger(client, view, settings)
    if uri and found.identity != uri:
        try:
            identity = Identity.parse(uri)
        except ValueError:
            return End(client, identity=uri)
        forms = (each.uri for each in settings.trust_domains.forms(identity))
        if found.identity in forms:
            return msgspec.structs.replace(found, identity=uri)
        # As beyond a gateway: the table does not know it at this address.
        return peer(client, uri, baggage)
    return found


def _stranger(text: str, view: MeshView, settings: NodeSettings) -> End:
    try:
        workload = view.workload_by_address(settings.network, address_of(text))
    except ValueError:
        workload = None
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
        region=workload.locality.region,
        zone=workload.locality.zone,
        service=service,
    )


def address_of(text: str) -> Address:
    """As lines have it, IPv6 in brackets. Raises ValueError."""
    return ipaddress.ip_address(text.strip("[]"))
