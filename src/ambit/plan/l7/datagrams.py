"""A UDP listener of a gateway: the first of its rules has all datagrams. Shares of services that do not exist, or
have no endpoint, go nowhere, as connections of theirs would be refused.
"""

from collections.abc import Iterator, Mapping

from ambit.envoy import names
from ambit.envoy.l7 import datagrams
from ambit.envoy.l7.admission import ANYBODY, Admission
from ambit.envoy.logs import datagram_log
from ambit.model.http import Backend
from ambit.model.proxy import Listener, ListenerRoutes
from ambit.model.streams import Datagrams, Stream, datagrams_key
from ambit.plan import backends
from ambit.plan.l7.circles import NONE, Circles
from ambit.plan.values import CLUSTER, ENDPOINTS, LISTENER, PlannedResource, planned


def resources(
    listener: Listener,
    routes: ListenerRoutes | None,
    known: Mapping[str, Datagrams],
    admission: Admission = ANYBODY,
    back: Circles = NONE,
) -> Iterator[PlannedResource]:
    """Its Envoy listener, and what that sends to. `known` are the UDP ports of services, by their keys; what
    leads `back` to the gateway goes nowhere."""
    name = names.gateway_udp_port(listener.port)
    rules = routes.streams if routes is not None else ()
    shares = [
        _share(each, known, back, listener, rule)
        for rule in rules[:1]
        for each in rule.backends
        if each.weight
    ]
    yield planned(CLUSTER, name, datagrams.cluster(listener.port))
    yield planned(ENDPOINTS, name, datagrams.endpoints(listener.port, shares))
    message = datagrams.listener(listener.port, families=backends.FAMILIES, admission=admission)
    yield planned(LISTENER, name, message)


def _share(
    backend: Backend, known: Mapping[str, Datagrams], back: Circles, listener: Listener, rule: Stream
) -> datagrams.Share:
    found = known.get(datagrams_key(backend.service, backend.port))
    told = datagram_log.known(listener.name, rule.name, backend.service)
    endpoints = found.endpoints if found is not None else ()
    return datagrams.Share(backend.weight, tuple(each for each in endpoints if not back.has(*each)), told)
