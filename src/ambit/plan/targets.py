"""Whom a policy for L7 proxies is for: a service, a proxy, or all of a class (Istio: `PolicyTargetReference`)."""

from collections.abc import Iterable, Iterator

from ambit.core.names import GATEWAY_CLASS_NAMES, INLINE_CLASS, WAYPOINT_CLASSES
from ambit.model.jwt import Target, TargetKind
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.workload import Workload

CLASSES = {
    ProxyKind.WAYPOINT: frozenset(WAYPOINT_CLASSES),
    ProxyKind.INLINE: frozenset({INLINE_CLASS}),
    ProxyKind.GATEWAY: frozenset(GATEWAY_CLASS_NAMES),
}
"""Names of the GatewayClasses of each kind of proxy."""


def concern(targets: Iterable[Target], proxy: Proxy, subject: Service | Workload | None = None) -> bool:
    """Whether any of `targets` is what `proxy` serves for `subject` (none: the proxy as a whole)."""
    return any(_is(each, proxy, subject) for each in targets)


def of(proxy: Proxy, services: Iterable[Service]) -> Iterator[Target]:
    """All targets that `concern` finds for these services of a proxy."""
    for name in CLASSES[proxy.kind]:
        yield Target("GatewayClass", "", name)
    namespace, _, name = proxy.key.partition("/")
    yield Target("Gateway", namespace, name)
    yield from of_services(services)


def of_services(services: Iterable[Service]) -> Iterator[Target]:
    """The targets that name these services."""
    for service in services:
        kind: TargetKind = "Service" if service.is_kubernetes else "ServiceEntry"
        yield Target(kind, service.namespace, service.name)


def _is(target: Target, proxy: Proxy, subject: Service | Workload | None) -> bool:
    match target.kind:
        case "GatewayClass":
            return target.name in CLASSES[proxy.kind]
        case "Gateway":
            return f"{target.namespace}/{target.name}" == proxy.key
        case kind:
            return (
                isinstance(subject, Service)
                and subject.is_kubernetes is (kind == "Service")
                and (subject.namespace, subject.name) == (target.namespace, target.name)
            )
