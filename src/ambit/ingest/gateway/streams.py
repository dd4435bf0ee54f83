"""Rules of TLSRoute, TCPRoute and UDPRoute: names of clients' hellos, and shares of connections.

The share of a backend that is not resolved is refused (Gateway API `TCPRouteRule.backendRefs`, `TLSRouteRule`,
`UDPRouteRule`), and so is everything when no backend has a weight.
"""

import re
from collections.abc import Iterator

from ambit.ingest.gateway.references import Known, Referrer, Unresolved, resolve
from ambit.ingest.gateway.rules import Rules
from ambit.ingest.settings import MeshSettings
from ambit.model.http import Backend
from ambit.model.streams import Stream
from ambit.objects.stream_routes import StreamRule, TCPRoute, TLSRoute, UDPRoute

StreamRoute = TLSRoute | TCPRoute | UDPRoute
_HOSTNAME = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MOST = 0xFFFFFFFF
"""Of all weights together."""


def stream_rules(route: StreamRoute, referrer: Referrer, known: Known, settings: MeshSettings) -> Rules:
    """All rules of a route as streams. A rule that cannot be carried out refuses its connections."""
    meta = route.metadata
    kind = type(route).__name__
    hostnames, refused = _hostnames(route)
    unresolved: list[Unresolved] = []
    streams: list[Stream] = []
    valid = 0
    if isinstance(route, TLSRoute) and not hostnames:
        return Rules((), tuple(refused) or ("hostnames: there is none",))
    for index, rule in enumerate(route.spec.rules):
        backends = tuple(_backends(rule, referrer, known, settings, unresolved))
        if any(each.weight < 0 for each in backends) or sum(each.weight for each in backends) > _MOST:
            refused.append(f"rules[{index}].backendRefs: weights are not between 0 and {_MOST} together")
            backends = ()
        else:
            valid += 1
        name = f"{meta.namespace}/{meta.name}/{rule.name or index}"
        streams.append(Stream(name, backends, hostnames, meta.reference(kind)))
    return Rules((), tuple(refused), tuple(dict.fromkeys(unresolved)), valid, tuple(streams))


def _hostnames(route: StreamRoute) -> tuple[tuple[str, ...], list[str]]:
    """Names that can be compared, and what is wrong with the others."""
    if not isinstance(route, TLSRoute):
        return (), []
    given = [each.lower() for each in route.spec.hostnames]
    good = tuple(dict.fromkeys(each for each in given if _HOSTNAME.fullmatch(each)))
    bad = [f"hostnames: {each!r} is no name of a host" for each in given if not _HOSTNAME.fullmatch(each)]
    return good, bad


def _backends(
    rule: StreamRule, referrer: Referrer, known: Known, settings: MeshSettings, unresolved: list[Unresolved]
) -> Iterator[Backend]:
    for each in rule.backend_refs:
        found = resolve(each.object, referrer, known, settings)
        if isinstance(found, Unresolved):
            unresolved.append(found)
            found = ("", 0)
        if each.weight:
            yield Backend(*found, each.weight)
