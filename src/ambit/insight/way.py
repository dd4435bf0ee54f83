"""Which waypoint a connection passes through on its way, from configuration alone. Pure."""

import ipaddress

import msgspec

from ambit.core.address import Address
from ambit.core.names import CLOSED_WITHOUT_WAYPOINT, UNUSABLE_WAYPOINT
from ambit.ingest.waypoints.unenforced import forbids
from ambit.insight.manifests import Compiled
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress, TunnelProtocol, Workload, WorkloadStatus
from ambit.plan import targets


class Way(msgspec.Struct, frozen=True):
    """`name` is the Gateway's, `<namespace>/<name>`, as far as it is known. `refused` says why nothing gets through;
    else `pod` is who endpoints see: the proxy's pod, with its identity and its tunnels."""

    name: str
    proxy: Proxy | None = None
    pod: Workload | None = None
    refused: str = ""


def waypoint_between(
    client: Workload | Address, bound: Service | Workload | None, compiled: Compiled
) -> Way | None:
    """None when there is none: nobody who is not in the mesh is led to one."""
    if bound is None or (address := bound.waypoint) is None:
        return None
    if not isinstance(client, Workload) or client.tunnel is not TunnelProtocol.HBONE:
        return None
    name = f"{address.namespace}/{address.hostname.partition('.')[0]}"
    if address.hostname.endswith(UNUSABLE_WAYPOINT):
        return Way(name, refused=_unusable(name, bound, compiled))
    if address.hostname.endswith(CLOSED_WITHOUT_WAYPOINT):
        return Way(
            "", refused=f"it is closed: {_without_proxy(bound, compiled)} is for it, and it has no waypoint"
        )
    place = address.namespace, address.hostname
    found = [each for each in compiled.proxies if (each.identity.namespace, each.service) == place]
    if not found:
        return _foreign(name, address, compiled)
    proxy = found[0]
    if proxy.kind is ProxyKind.INLINE:
        # A service that callers' own proxies route has no waypoint any more.
        return Way(proxy.key, proxy, refused=f"it is closed: {_inline(bound, compiled)}")
    key = f"{address.namespace}/{address.hostname}"
    pods = _ready(key, compiled)
    if not pods and key not in {each.key for each in compiled.services}:
        # Files do not have what the control plane makes of a Gateway.
        pods = [imagined(proxy)]
    if not pods:
        return Way(proxy.key, proxy, refused=f"waypoint {proxy.key} has no pod that is ready")
    pod = msgspec.structs.replace(pods[0], identity=proxy.identity, tunnel=TunnelProtocol.HBONE)
    return Way(proxy.key, proxy, pod)


def each_alone(
    client: Workload | Address, bound: Service, compiled: Compiled
) -> tuple[tuple[float, Service], ...]:
    """The service as if each of its waypoints were its only one, with that one's part of the connections in percent.
    One without a pod that is ready leaves its part to the others."""
    if not bound.weighted_waypoints:
        return ((100.0, bound),)
    found = [
        (each.weight, msgspec.structs.replace(bound, waypoint=each.gateway, weighted_waypoints=()))
        for each in bound.waypoints
    ]
    ways = [(weight, each, waypoint_between(client, each, compiled)) for weight, each in found]
    ready = [(weight, each) for weight, each, way in ways if way is None or way.pod is not None]
    chosen = ready or found[:1]
    total = sum(weight for weight, _ in chosen)
    return tuple((round(100 * weight / total, 1), each) for weight, each in chosen)


def _foreign(name: str, address: GatewayAddress, compiled: Compiled) -> Way:
    """By a waypoint that is somebody else's, about which nothing more is known, or by nobody."""
    key = f"{address.namespace}/{address.hostname}"
    if key not in {each.key for each in compiled.services}:
        return Way(name, refused=f"waypoint {name} is not there, and nobody is let past it")
    pods = _ready(key, compiled)
    return Way(name, pod=pods[0]) if pods else Way(name, refused=f"waypoint {name} has no pod that is ready")


def _unusable(name: str, bound: Service | Workload, compiled: Compiled) -> str:
    """As the compiler says it of the object that asks for the waypoint."""
    words = f"waypoint {name} "
    kinds = ("Service", "ServiceEntry") if isinstance(bound, Service) else ("Pod", "WorkloadEntry")
    of_object = [(kind, bound.namespace, bound.name) for kind in kinds]
    said = (
        each.text
        for each in compiled.findings
        if (each.origin.kind, each.origin.namespace, each.origin.name) in of_object
    )
    found = next((text for text in said if text.startswith(words)), "")
    return found or f"{words}does not let this namespace in"


def _ready(service: str, compiled: Compiled) -> list[Workload]:
    return [
        each
        for each in compiled.workloads
        if service in each.services and each.status is WorkloadStatus.HEALTHY and each.addresses
    ]


def _without_proxy(bound: Service | Workload, compiled: Compiled) -> str:
    own = set(targets.of_services((bound,))) if isinstance(bound, Service) else set()
    found = (each for each in compiled.request_policies if own & set(each.targets) and forbids(each))
    return ", ".join(each.key for each in found) or "a policy"


def _inline(bound: Service | Workload, compiled: Compiled) -> str:
    """The compiler says of what nobody would enforce or speak why it is so."""
    key = bound.key if isinstance(bound, Service) else bound.uid
    return compiled.closed.get(key, "nobody can do what is written for it")


def imagined(proxy: Proxy) -> Workload:
    """A pod of a proxy, as far as its Gateway says how it is."""
    namespace, _, name = proxy.key.partition("/")
    return Workload(
        uid=proxy.key,
        name=name,
        namespace=namespace,
        identity=proxy.identity,
        addresses=(ipaddress.IPv4Address(0),),
    )
