"""Requests that are routed in their caller's own node proxy: what one pod's Envoy has for one destination.

A service with `inline` routes is reached as any other, but that its HTTP ports lead into a listener of the pod's own,
whose table names clusters of the pod's own. So each backend is reached as the pod would reach it: within the node, by
tunnels as the pod, through the backend's own waypoint if it has one. The backend that is the service itself, or that
is another with inline routes, is its endpoints: tables do not lead to tables.
"""

from collections.abc import Iterable, Iterator

import msgspec

from ambit.core.address import Address
from ambit.envoy import calls, clusters, names, waypoint_services
from ambit.envoy.backend_tls import Spoken
from ambit.envoy.http import routes as http_routes
from ambit.envoy.http.telling import NOTHING, Told
from ambit.envoy.logs import access_log
from ambit.envoy.node import inline_requests
from ambit.envoy.waypoint_services import Speaks
from ambit.model.http import Entry, Host
from ambit.model.service import Service
from ambit.model.view import MeshView, holder
from ambit.plan import announcement, backends
from ambit.plan.backends import Provider, provider
from ambit.plan.endpoints import preferred_address
from ambit.plan.node import destinations, pod_calls
from ambit.plan.node.ways import Balanced
from ambit.plan.telemetry.telling import told_of
from ambit.plan.telemetry.tracing import collector
from ambit.plan.values import (
    CLUSTER,
    LISTENER,
    ROUTES,
    LocalPod,
    LocalPods,
    NodeSettings,
    PlannedResource,
    planned,
    workload_of,
)

_PART = "span_"
"""Begins the keys of endpoints' metadata that are for spans: others have some of the names."""


def resources(
    name: str, view: MeshView, pods: LocalPods, settings: NodeSettings
) -> tuple[PlannedResource, ...]:
    """What the answer for the cluster `name` needs besides: clusters, the listener, and its table, which is sent to who
    asks for it. Nothing when requests to the destination are not routed here."""
    try:
        asked = names.parse_cluster(name)
    except ValueError:
        return ()
    if not isinstance(asked, names.Destination) or asked.tunnelled:
        return ()
    source = pods.by_key(asked.source)
    if source is None:
        return ()
    service = holder(view, settings.network, asked.address, client_namespace=source.namespace)
    routes = service.inline_routes(asked.port) if isinstance(service, Service) else None
    if not isinstance(service, Service) or routes is None:
        return ()
    hosts = routes.hosts or http_routes.to_service(service.key, asked.port, service.session)
    hosts = tuple(_for_callers_in(source.namespace, each) for each in hosts)
    reader = names.requests(asked)
    client = preferred_address(source.addresses, asked.address.version)
    assert client is not None, "a pod has an address"
    caller = calls.Caller(source.key, source.netns, client, source.identity)
    told, tells = _told(reader, source, service, view, settings)
    listener = inline_requests.listener(
        reader,
        caller=caller,
        service=service.key,
        port=asked.port,
        default_host=service.hostname,
        told=told,
    )
    own = tuple(_of_reader(each, reader) for each in hosts)
    more = http_routes.TableOptions(source.identity.uri)
    table = http_routes.table(reader, own, port=asked.port, more=more)
    mirrored = _mirrored(hosts)
    called = (
        _backend(
            reader,
            source,
            asked,
            *each,
            service,
            view,
            pods,
            settings,
            caller if each in mirrored else None,
            is_told=told.spans is not None,
        )
        for each in sorted(backends.of_hosts(hosts))
    )
    return (
        *pod_calls.resources(source, tells, view, pods, settings),
        *(made for each in called for made in each),
        planned(LISTENER, reader, listener),
        planned(ROUTES, reader, table, on_demand=True),
    )


def _for_callers_in(namespace: str, host: Host) -> Host:
    """The same without routes of other callers: what those write makes nobody else's table longer, or refused."""
    entries = (
        each
        for each in host.entries
        if not each.match.source_namespaces or namespace in each.match.source_namespaces
    )
    return msgspec.structs.replace(host, entries=tuple(entries))


def _told(
    reader: str, source: LocalPod, service: Service, view: MeshView, settings: NodeSettings
) -> tuple[Told, dict[str, Provider]]:
    """What the service's Gateway would tell of the requests, told in the pod's name; and by which cluster whom."""
    said = service.telemetry
    if said is None:
        return NOTHING, {}
    told = told_of(said.policies, said.proxy, settings, service)
    tells: dict[str, Provider] = {}
    sent = []
    for each in told.sent:
        to = provider(each.to.service)
        cluster = names.service_cluster(names.requests_logs(reader, to.service), to.port)
        tells[cluster] = to
        sent.append(msgspec.structs.replace(each, cluster=cluster))
    spans = told.spans
    if spans is not None:
        to = collector(spans.tracing.tracer)
        cluster = names.service_cluster(names.requests_spans(reader, to.service), to.port)
        tells[cluster] = to
        workload = workload_of(source, view, settings)
        baggage = announcement.baggage(workload) if workload is not None else ""
        client = f"{source.identity.uri},{baggage}"
        spans = msgspec.structs.replace(spans, cluster=cluster, client=client, endpoint=_PART)
    return msgspec.structs.replace(told, sent=tuple(sent), spans=spans), tells


def _parts(endpoint: clusters.Endpoint, view: MeshView) -> clusters.Endpoint:
    """With what spans say of whom it is."""
    workload = view.workload(endpoint.tags.get(access_log.WORKLOAD, ""))
    if workload is None:
        return endpoint
    parts = {f"{_PART}{name}": value for name, value in announcement.parts(workload).items()}
    return msgspec.structs.replace(endpoint, tags={**endpoint.tags, **parts})


def _of_reader(host: Host, reader: str) -> Host:
    """The same with backends that are called after the listener."""
    return msgspec.structs.replace(host, entries=tuple(_entry(each, reader) for each in host.entries))


def _entry(entry: Entry, reader: str) -> Entry:
    action = entry.action
    called = tuple(
        msgspec.structs.replace(each, service=names.requests_backend(reader, each.service))
        if each.service
        else each
        for each in action.backends
    )
    mirrors = tuple(
        msgspec.structs.replace(each, service=names.requests_copies(reader, each.service))
        if each.service
        else each
        for each in action.mirrors
    )
    action = msgspec.structs.replace(action, backends=called, mirrors=mirrors)
    return msgspec.structs.replace(entry, action=action)


def _backend(
    reader: str,
    source: LocalPod,
    asked: names.Destination,
    key: str,
    port: int,
    called: Service,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
    caller: calls.Caller | None,
    *,
    is_told: bool,
) -> Iterator[PlannedResource]:
    """Without endpoints when there is no way: requests are answered with 503. So it is where nobody would enforce the
    rules of the service that was called, because the backend's pods are not that service's, and where servers are to be
    spoken to with TLS and none of them can be trusted. Nothing for a service that does not exist: 500, as at a
    waypoint. `caller` is given where it gets copies of requests, too; with `is_told` endpoints have what spans say."""
    service = view.service(key)
    if service is None:
        return
    found: object = None
    place = _address(service, asked.address)
    if place is not None or not service.has_waypoint:
        to = msgspec.structs.replace(asked, address=place or asked.address, port=port)
        found = destinations.backend("", source, to, service, view, pods, settings, called)
    endpoints: tuple[clusters.Endpoint, ...] = ()
    if isinstance(found, Balanced):
        endpoints = found.announcing(announcement.tags(workload_of(source, view, settings), key))
    if is_told:
        endpoints = tuple(_parts(each, view) for each in endpoints)
    tls = service.backend_tls.get(port)
    spoken = Spoken(tls) if tls is not None and tls.trusts else None
    if tls is not None and spoken is None:
        endpoints = ()
    speaks = Speaks.HTTP2 if service.app_protocols.get(port) in backends.HTTP2 else Speaks.AS_CLIENT
    name = names.service_cluster(names.requests_backend(reader, key), port)
    tags = {access_log.SERVICE: key}
    yield planned(CLUSTER, name, waypoint_services.cluster_with(name, endpoints, speaks, tags, spoken))
    if caller is None:
        return
    copies = names.service_cluster(names.requests_copies(reader, key), port)
    if spoken is not None:
        name = names.into_service(names.requests_copies(reader, key), port)
        yield planned(CLUSTER, name, waypoint_services.cluster_with(name, endpoints, Speaks.BYTES, tags))
    yield planned(CLUSTER, copies, calls.cluster(copies, speaks, spoken))
    yield planned(LISTENER, copies, calls.listener(copies, caller=caller, way=name))


def _mirrored(hosts: Iterable[Host]) -> frozenset[backends.Backend]:
    """What gets copies of requests."""
    actions = (entry.action for host in hosts for entry in host.entries)
    return frozenset((each.service, each.port) for action in actions for each in action.mirrors)


def _address(service: Service, like: Address) -> Address | None:
    """An address of the service, of the same family if there is one: how its waypoint knows what it is for."""
    return preferred_address(service.single_addresses, like.version)
