"""Everything that the Envoy of one node gets: pure functions from pods and the mesh view to finished
resources.

The agent sends `shared_resources` and each pod's `pod_resources` to the wildcard, answers questions for
clusters with `destination` and for secrets with `secret`, and sends again whatever changed version after the
mesh changed. Extensions (ECDS), secrets and on-demand clusters go only to who asked for their name.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from ambit.core.address import Address, Network, outer_network, sorted_networks
from ambit.core.identity import Identity
from ambit.core.names import RESERVED_PORTS
from ambit.envoy import bootstrap as envoy_bootstrap
from ambit.envoy import clusters, names, tls
from ambit.envoy.logs import access_log
from ambit.envoy.node import application_tunnel, host_names, listeners
from ambit.envoy.words import AnyMessage
from ambit.model.policy import Authorization
from ambit.model.view import MeshView
from ambit.model.workload import ApplicationTunnel, TunnelledAs, Workload
from ambit.plan import authorization
from ambit.plan.node import at_pod, destinations, ways
from ambit.plan.node.names_served import host_targets
from ambit.plan.values import (
    CLUSTER,
    EXTENSION,
    LISTENER,
    SECRET,
    LocalPod,
    LocalPods,
    NodeSettings,
    PlannedResource,
    planned,
    workload_of,
)

__all__ = [
    "LocalPod",
    "LocalPods",
    "NodeSettings",
    "PlannedResource",
    "bootstrap",
    "destination",
    "goes_on",
    "inline_resources",
    "is_unknown",
    "outbound_resources",
    "pod_resources",
    "read_ports",
    "refused_policy",
    "required_secrets",
    "secret",
    "shared_resources",
    "told_ports",
    "trust_bundle",
    "tunnelled_share",
    "workload_of",
]


_LIMITED = {
    access_log.ROUTE: ways.REFUSED,
    access_log.REASON: "the pod has too many destinations",
}


def bootstrap(settings: NodeSettings, *, xds_socket: str, logs_socket: str, admin_socket: str) -> bytes:
    """Envoy's bootstrap, to be written as a `.pb` file. Start Envoy with `--concurrency 1`."""
    message: AnyMessage = envoy_bootstrap.proxy(
        node=settings.node,
        xds_socket=xds_socket,
        logs_socket=logs_socket,
        admin_socket=admin_socket,
        max_connections=settings.max_connections,
    )
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def shared_resources() -> tuple[PlannedResource, ...]:
    """What every node proxy has, whatever pods are there. Send it before any pod's resources."""
    return (
        planned(CLUSTER, names.REFUSED, clusters.refused(names.REFUSED, {})),
        planned(CLUSTER, names.LIMITED, clusters.refused(names.LIMITED, _LIMITED)),
        planned(
            CLUSTER,
            names.PASSTHROUGH,
            clusters.passthrough(names.PASSTHROUGH, {access_log.ROUTE: ways.DIRECT}),
        ),
        planned(LISTENER, names.CONNECT_ORIGINATE, listeners.connect_originate()),
        planned(LISTENER, names.NETWORK_ORIGINATE, listeners.network_originate()),
        planned(LISTENER, names.DIRECT_ORIGINATE, listeners.direct_originate()),
        planned(LISTENER, names.OUTSIDE_ORIGINATE, listeners.outside_originate()),
    )


def pod_resources(
    pod: LocalPod,
    view: MeshView,
    settings: NodeSettings,
    only: Iterable[tuple[Address, int]] | None = None,
    tunnelled: Mapping[tuple[Address, int], tuple[int, int]] | None = None,
    unread: Collection[int] = (),
    left: Collection[int] = (),
    had_readers: bool = False,
    readers: Collection[int] = (),
    untold: Collection[int] = (),
    pods: LocalPods | None = None,
) -> tuple[PlannedResource, ...]:
    """The three listeners, local cluster and policies of one pod. A pod whose workload is not known, or that
    names an unknown policy, accepts nothing. One with `only` can reach no other destination in the mesh. Of the ports
    whose requests are to be read, tunnels to those in `unread` are denied: Envoy does not read them yet. Those that
    are `left` were read until now. `had_readers`: a listener that leads to who reads may have tunnels still, while it
    drains. `readers`: ports for which Envoy has somebody who reads. `untold`: ports that are to be read only to be told
    of, once Envoy has who reads. `pods` are the node's."""
    workload = workload_of(pod, view, settings)
    policies, unknown = at_pod.policies_for(workload, view) if workload else ((), (pod.key,))
    closed = view.policies_for(workload) if workload else (policies, unknown)
    ports = at_pod.ports_of(workload, view)
    read = [port for port, each in ports.items() if each.is_read or (each.is_told and port not in untold)]
    handed_on = workload.application_tunnel if workload else None
    hbone = listeners.hbone(
        pod=pod.key,
        netns=pod.netns,
        addresses=pod.addresses,
        server_secret=names.server_secret(pod.identity),
        transparent=pod.transparent,
        is_handed_on=handed_on is not None,
        is_named=bool(settings.network),
        is_read=bool(ports),
    )
    plaintext = listeners.plaintext(
        pod=pod.key,
        netns=pod.netns,
        addresses=pod.addresses,
        matcher=authorization.plaintext(
            pod.addresses, policies, unknown, _denials(ports, is_plain=True), read
        ),
        transparent=pod.transparent,
        read=read,
    )
    denials = _denials(ports, is_plain=False)
    policy = authorization.hbone(names.policy(pod.key), pod.addresses, *closed, handed_on, denials)
    local = clusters.inside(names.local_cluster(pod.key), pod.netns, {})
    return (
        planned(CLUSTER, names.local_cluster(pod.key), local),
        planned(EXTENSION, names.policy(pod.key), policy, on_demand=True),
        *(_named(pod, workload, view, settings) if settings.network else ()),
        *(_handed_on(pod, handed_on) if handed_on is not None else ()),
        *(_for_readers(pod, workload, view, unread, denials) if workload and (ports or had_readers) else ()),
        *(
            _read(
                pod, ports, view, pods or LocalPods((pod,)), settings, read, left, readers, policies, unknown
            )
            if ports or readers
            else ()
        ),
        *outbound_resources(pod, view, settings, only, tunnelled),
        planned(LISTENER, names.hbone_listener(pod.key), hbone),
        planned(LISTENER, names.plaintext_listener(pod.key), plaintext),
    )


def _for_readers(
    pod: LocalPod,
    workload: Workload,
    view: MeshView,
    unread: Collection[int],
    denials: Sequence[authorization.Row],
) -> Iterable[PlannedResource]:
    """The pod's policies where tunnels are led to who reads requests. Listeners that know of nobody who does have
    others (`names.policy`), by which nobody comes to ports that are to be read: such a listener drains for a while."""
    name = names.policy_of_readers(pod.key)
    policies, unknown = at_pod.policies_for(workload, view, unread)
    policy = authorization.hbone(name, pod.addresses, policies, unknown, before=denials)
    yield planned(EXTENSION, name, policy, on_demand=True)


def _read(
    pod: LocalPod,
    ports: at_pod.Ports,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
    led: Collection[int],
    left: Collection[int],
    readers: Collection[int],
    policies: Sequence[Authorization],
    unknown: Sequence[str],
) -> Iterable[PlannedResource]:
    """What requests to the pod meet. What it is made with is imported then."""
    from ambit.plan.node import pod_requests

    def denied(port: int) -> Sequence[authorization.Row]:
        return authorization.of_requests(pod.addresses, port, policies, unknown)

    if ports:
        yield from pod_requests.resources(pod, ports, view, pods, settings, led, left, denied)
    former = {port for port in readers if port not in left and not (port in ports and ports[port].is_http)}
    yield from pod_requests.former(pod, former, denied)


def read_ports(pod: LocalPod, view: MeshView, settings: NodeSettings) -> frozenset[int]:
    """The pod's ports whose requests are read, as `pod_resources` has it."""
    ports = at_pod.ports_of(workload_of(pod, view, settings), view)
    return frozenset(port for port, each in ports.items() if each.is_read)


def told_ports(pod: LocalPod, view: MeshView, settings: NodeSettings) -> frozenset[int]:
    """Those whose requests are read only to be told of."""
    ports = at_pod.ports_of(workload_of(pod, view, settings), view)
    return frozenset(port for port, each in ports.items() if each.is_told)


def _denials(ports: at_pod.Ports, *, is_plain: bool) -> Sequence[authorization.Row]:
    if not ports:
        return ()
    from ambit.plan.node import pod_requests

    return pod_requests.denials(ports, is_plain=is_plain)


def _named(
    pod: LocalPod, workload: Workload | None, view: MeshView, settings: NodeSettings
) -> Iterable[PlannedResource]:
    """By which names tunnels from other networks may ask for the pod."""
    targets = host_names.extension(pod.key, host_targets(workload, view, settings) if workload else {})
    yield planned(EXTENSION, names.hosts(pod.key), targets, on_demand=True)


def _handed_on(pod: LocalPod, tunnel: ApplicationTunnel) -> Iterable[PlannedResource]:
    """The rest of the way for a pod whose application is told of its tunnels. A port of the mesh leads nowhere: it
    would lead back here."""
    is_told = tunnel.protocol is TunnelledAs.PROXY
    name, into = names.application(pod.key), names.handed(pod.key)
    yield planned(CLUSTER, into, application_tunnel.into(pod.key))
    if tunnel.port in RESERVED_PORTS:
        yield planned(CLUSTER, name, clusters.refused(name, {}))
    else:
        yield planned(CLUSTER, name, application_tunnel.application(pod.key, pod.netns, is_told=is_told))
    listener = application_tunnel.listener(pod.key, pod.addresses, tunnel.port, is_told=is_told)
    yield planned(LISTENER, into, listener)


def refused_policy(name: str) -> PlannedResource:
    """Takes the place of the policy `name` (of `names.policy`, or of a pod's requests) that Envoy refused: it denies
    everything."""
    if name.startswith(names.tokens("")):
        from ambit.envoy.http import jwt

        return planned(EXTENSION, name, jwt.closed(name), on_demand=True)
    if name.startswith(names.ASKS):
        from ambit.plan import request_authorization

        return planned(EXTENSION, name, request_authorization.refused_place(name), on_demand=True)
    return planned(EXTENSION, name, authorization.refused(name), on_demand=True)


def outbound_resources(
    pod: LocalPod,
    view: MeshView,
    settings: NodeSettings,
    only: Iterable[tuple[Address, int]] | None = None,
    tunnelled: Mapping[tuple[Address, int], tuple[int, int]] | None = None,
) -> tuple[PlannedResource, ...]:
    """The part of `pod_resources` that may be sent before the first complete answer of the control plane."""
    outbound = listeners.outbound(
        pod=pod.key,
        netns=pod.netns,
        addresses=pod.addresses,
        client_secret=names.client_secret(pod.identity),
        outer=_outer_networks(view, settings),
        only=only,
        generations=pod.generations,
        tunnelled=tunnelled,
        transparent=pod.transparent,
        within=pod.within,
    )
    return (planned(LISTENER, names.outbound_listener(pod.key), outbound),)


def _outer_networks(view: MeshView, settings: NodeSettings) -> tuple[Network, ...]:
    """Those of the view, and the cluster's own: what is in neither and not private passes without a question."""
    own = (each for each in settings.cluster_ranges if outer_network(each.network_address, each.prefixlen))
    return sorted_networks({*view.outer_networks(settings.network), *own})


def destination(
    name: str, view: MeshView, local_pods: LocalPods, settings: NodeSettings, *, is_divided: bool = False
) -> PlannedResource:
    """The answer to a question for cluster `name`; there is always one. It depends on the named pod, on the
    destination's service or workload, its endpoints and its policies. `is_divided`: the pod's outbound listener
    has the destination among `tunnelled`."""
    cluster = destinations.answer(name, view, local_pods, settings, is_divided=is_divided)
    return planned(CLUSTER, name, cluster, on_demand=True)


def inline_resources(
    name: str, view: MeshView, local_pods: LocalPods, settings: NodeSettings
) -> tuple[PlannedResource, ...]:
    """What the answer for cluster `name` needs besides where requests are routed here: clusters, a listener, and
    its table, which is sent to who asks for it; else nothing. What they are made with is imported then."""
    from ambit.plan.node import inline

    return inline.resources(name, view, local_pods, settings)


tunnelled_share = destinations.tunnelled_share
goes_on = destinations.goes_on
is_unknown = destinations.is_unknown


def secret(name: str, *, chain_pem: str, key_pem: str) -> PlannedResource:
    """The certificate `name` (`names.server_secret` or `names.client_secret` of an identity; whose it is
    tells `names.parse_secret`). Each identity of a local pod is asked for under both."""
    message = tls.certificate(name, chain_pem=chain_pem, key_pem=key_pem)
    return planned(SECRET, name, message, on_demand=True)


def trust_bundle(roots: Mapping[str, str]) -> PlannedResource:
    """The secret `names.TRUST`: roots (PEM) by trust domain."""
    return planned(SECRET, names.TRUST, tls.trust_bundle(roots), on_demand=True)


def required_secrets(identity: Identity) -> tuple[str, str]:
    """Names under which Envoy may ask for a local identity's certificate."""
    return names.server_secret(identity), names.client_secret(identity)
