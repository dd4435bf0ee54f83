"""Requests that a pod's own node reads: the resources of its ports of HTTP that have rules, or may come to have some
(`ambit.plan.node.at_pod`): so a port is led there, and past it again, without a connection that fails."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from ambit.envoy import matchers, names
from ambit.envoy.http import jwt as http_jwt
from ambit.envoy.http.authorization import Place
from ambit.envoy.matchers import Predicate
from ambit.envoy.node import connection_manager, pod_requests
from ambit.model.jwt import KeySource
from ambit.model.view import MeshView
from ambit.plan import request_authorization
from ambit.plan.authorization import Row
from ambit.plan.node import pod_calls
from ambit.plan.node.at_pod import PodPort, Ports, networks_of
from ambit.plan.request_authorization import Showing
from ambit.plan.values import (
    CLUSTER,
    EXTENSION,
    LISTENER,
    ROUTES,
    LocalPod,
    LocalPods,
    NodeSettings,
    PlannedResource,
    planned,
)

_FETCHED: Mapping[KeySource, str] = {}
"""Keys come with the rules."""


def resources(
    pod: LocalPod,
    ports: Ports,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
    led: Collection[int],
    left: Collection[int] = (),
    denied: Callable[[int], Sequence[Row]] = lambda _: (),
) -> Iterator[PlannedResource]:
    """Clusters first, the table of tunnels last. Requests to ports that are `led` there are read. Those to ports that
    are `left` meet what they met until now: others may not be kept out yet. `denied` says of a port what connections'
    policies deny there."""
    asked = {
        names.called_by(pod.key, each.cluster): each
        for port in ports.values()
        for each in _showing(pod, port).providers
    }
    yield from pod_calls.resources(pod, asked, view, pods, settings)
    read = {port: each for port, each in ports.items() if each.is_http}
    for port, each in read.items():
        server = pod_requests.server(pod.key, pod.netns, port, is_http2=each.is_http2)
        yield planned(CLUSTER, server.name, server)
        into = pod_requests.into(pod.key, port)
        yield planned(CLUSTER, into.name, into)
    for port, each in read.items():
        made = _port(pod, port, each, denied(port))
        yield from (one for one in made if port not in left or one.type_url != EXTENSION)
    to_reader = [port for port, each in ports.items() if port in led or (each.is_http and port in left)]
    table = connection_manager.table(pod=pod.key, addresses=pod.addresses, read=to_reader)
    yield planned(ROUTES, table.name, table, on_demand=True)


def former(
    pod: LocalPod, ports: Iterable[int], denied: Callable[[int], Sequence[Row]]
) -> Iterator[PlannedResource]:
    """For ports at which nobody's rules are enforced any more, nor may come to be. Connections of before lead to who
    read there, and stay as long as their clients want."""
    subject = names.pod_requests(pod.key)
    for port in sorted(ports):
        name = names.allowed(subject, port)
        message = request_authorization.of_nobody(name, denied(port))
        yield planned(EXTENSION, name, message, on_demand=True)


def denials(ports: Ports, *, is_plain: bool) -> list[Row]:
    """What is denied of connections, by rules for ports whose requests are not read: in tunnels, or as they come."""
    return [
        (matchers.all_of([_is_for(port, is_plain=is_plain), predicate]), False, name)
        for port, each in ports.items()
        for ruled in each.of_connections
        for predicate, _, name in request_authorization.denials(
            ruled.policies, Place(ruled.port, networks_of(ruled.addresses), is_http=False, is_plain=is_plain)
        )
    ]


def _is_for(port: int, *, is_plain: bool) -> Predicate:
    return matchers.destination_port(port) if is_plain else matchers.authority_port(port)


def _port(pod: LocalPod, port: int, given: PodPort, denied: Sequence[Row]) -> Iterator[PlannedResource]:
    subject = names.pod_requests(pod.key)
    first = next(each for each in (*given.judges, *given.services) if each.is_http)
    showing = _showing(pod, given)
    made = pod_requests.listener(
        pod.key,
        port,
        identity=pod.identity.uri,
        service=first.service,
        default_host=first.hostname,
        places=showing.places,
    )
    yield planned(LISTENER, made.name, made)
    tokens = f"{subject}|{port}"
    name = names.tokens(tokens)
    message = http_jwt.closed(name) if given.is_closed else http_jwt.tokens(tokens, given.tokens, _FETCHED)
    yield planned(EXTENSION, name, message, on_demand=True)
    judges = [(each.policies, Place(each.port, networks_of(each.addresses))) for each in given.judges]
    for extension in request_authorization.places(subject, port, showing, judges):
        yield planned(EXTENSION, extension.name, extension, on_demand=True)
    allowed = names.allowed(subject, port)
    yield planned(EXTENSION, allowed, request_authorization.of_all(allowed, judges, denied), on_demand=True)


def _showing(pod: LocalPod, given: PodPort) -> Showing:
    """Bytes are shown to nobody."""
    judges = given.judges if given.is_http else ()
    return request_authorization.showing((policy for each in judges for policy in each.policies), pod.key)
