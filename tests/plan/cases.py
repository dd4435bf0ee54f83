"""A small mesh that shows every kind of resource, for golden files and for Envoy's own validation."""

import ipaddress

import msgspec

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model import http
from ambit.model.backend_tls import BackendTls
from ambit.model.http import Backend, Entry, Host, NamedMatch, RequestMatch
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Prefix, Presence, Rule, Scope
from ambit.model.provider import ProviderService
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.service import AppProtocol, BalancingMode, LoadBalancing, Service, VirtualAddress
from ambit.model.telemetry import (
    Entries,
    InlineTelemetry,
    Level,
    LogRule,
    LogService,
    Printer,
    TelemetryPolicy,
)
from ambit.model.view import Snapshot
from ambit.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Port,
    TunnelledAs,
    TunnelProtocol,
    Workload,
)
from ambit.plan.node import node_proxy
from ambit.plan.node.node_proxy import LocalPod, LocalPods, NodeSettings, PlannedResource
from ambit.plan.values import CLUSTER, LISTENER

TOLD = TunnelledAs.PROXY


def workload(name: str, *addresses: str, node: str = "node2", **more: object) -> Workload:
    fields = {
        "uid": f"Kubernetes//Pod/default/{name}",
        "name": name,
        "namespace": "default",
        "identity": Identity("cluster.local", "default", name),
        "addresses": tuple(map(ipaddress.ip_address, addresses)),
        "tunnel": TunnelProtocol.HBONE,
        "node": node,
    }
    return Workload(**{**fields, **more})  # type: ignore[arg-type]


def pod(value: Workload) -> LocalPod:
    return LocalPod(
        uid=f"uid-{value.name}",
        namespace=value.namespace,
        name=value.name,
        sandbox="s1",
        identity=value.identity,
        addresses=value.addresses,
        netns=f"/run/netns/{value.name}",
    )


WEB = {"default/web.default.svc.cluster.local": (Port(80, 8080),)}
CLIENT = workload("client", "10.244.1.2", "fd00:10:244:1::2", node="node1")
NEAR = workload("near", "10.244.1.3", "fd00:10:244:1::3", node="node1", services=WEB)
FAR = workload("far", "10.244.2.3", services=WEB)
PLAIN = workload("plain", "10.244.2.4", tunnel=TunnelProtocol.NONE, services=WEB)
SERVICE = Service(
    name="web",
    namespace="default",
    hostname="web.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.20")),),
    ports=(Port(80, 8080),),
    subject_alt_names=("spiffe://cluster.local/ns/default/sa/web",),
)
EMPTY = Service(
    name="empty",
    namespace="default",
    hostname="empty.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.21")),),
    ports=(Port(80, 8080),),
)
GUARDED = Service(
    name="guarded",
    namespace="default",
    hostname="guarded.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.22")),),
    ports=(Port(80, 8080),),
    waypoint=GatewayAddress(port=15008, address=ipaddress.ip_address("10.244.2.3")),
)
ROUTED = Service(
    name="routed",
    namespace="default",
    hostname="routed.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.25")),),
    ports=(Port(80, 8080), Port(81, 8081)),
    inline=(
        ServiceRoutes(
            "default/routed.default.svc.cluster.local",
            80,
            (
                Host(
                    ("*",),
                    (
                        Entry(
                            "default/routed/0",
                            RequestMatch(headers=(NamedMatch("x-version", "2"),)),
                            http.Action((Backend(SERVICE.key, 80, 9), Backend(GUARDED.key, 80))),
                        ),
                        Entry("default/routed/1", RequestMatch(), http.Action((Backend(EMPTY.key, 80),))),
                    ),
                ),
            ),
        ),
    ),
)
ROOT = """\
-----BEGIN CERTIFICATE-----
MIIBbzCCARWgAwIBAgIUa465q74gxws5st+KBqEW3wwWqfUwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBcjAgFw0yNjExMjEwNDQzMDVaGA8yMTI2MTAyODA0NDMwNVow
DDEKMAgGA1UEAwwBcjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIaxmE2PyB/S
aHSzR8eGElIETb6p7eryLsLHtdPDIqXwbvLmZ2yg18UDzmgLgCspg3BTl6yWQu4a
Y5tLe+qu6iujUzBRMB0GA1UdDgQWBBQegSs7r230W5BuB0PLGpaxc0AIBTAfBgNV
HSMEGDAWgBQegSs7r230W5BuB0PLGpaxc0AIBTAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0gAMEUCIE7hQBBJlPiuqz4vFJineLhZz9UxrhzqVXkfTzz0vow9
AiEAwYo7+7RazxWNS7xlh6LzpTl4zmLV6jPYv6oORj2WRRM=
-----END CERTIFICATE-----
"""
"""A certificate that Envoy reads; nobody has its key."""
SECURED = Service(
    name="secured",
    namespace="default",
    hostname="secured.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.27")),),
    ports=(Port(80, 8443),),
    app_protocols={80: AppProtocol.HTTP11},
    backend_tls={80: BackendTls("secured.example.com", ROOT, ("secured.example.com",))},
    inline=(),
)
"""By TLS, routed where requests come from."""
LOGS = ProviderService("logs.default.svc.cluster.local", 4317)
_SENT = (
    Printer("records", to=LogService(LOGS, "requests", (("code", "%RESPONSE_CODE%"),))),
    Printer("entries", to=LogService(LOGS, "entries", entries=Entries(request_headers=("x-team",)))),
)
LOGGED = msgspec.structs.replace(
    SECURED,
    backend_tls={},
    telemetry=InlineTelemetry(
        Proxy(
            "default/way",
            ProxyKind.INLINE,
            Identity("cluster.local", "default", "way"),
            "",
            ObjectRef("Gateway", "default", "way"),
        ),
        (TelemetryPolicy("default/all", Level.MESH, (LogRule(_SENT, "response.code >= 400"),)),),
    ),
)
"""Routed where requests come from, and a service is told of those that fail."""
GATEWAY = workload(
    "gateway",
    "172.16.9.1",
    network="east",
    services={"gateways/east.example.com": (Port(15008, 15008),)},
)
EAST = Service(
    name="east",
    namespace="gateways",
    hostname="east.example.com",
    ports=(Port(15008, 15008),),
)
ABROAD = Service(
    name="abroad",
    namespace="default",
    hostname="abroad.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.23")),),
    ports=(Port(80, 8080),),
    subject_alt_names=("spiffe://cluster.local/ns/default/sa/abroad",),
)
REMOTE = workload(
    "remote",
    network="east",
    services={ABROAD.key: (Port(80, 8080),)},
    network_gateway=GatewayAddress(port=15008, namespace="gateways", hostname="east.example.com"),
)
EXTERNAL = {"default/db.example.com": (Port(5432, 6432),)}
OUTSIDE = Service(
    name="database",
    namespace="default",
    hostname="db.example.com",
    addresses=(VirtualAddress("", ipaddress.ip_address("240.240.0.7")),),
    ports=(Port(5432, 5432),),
)
BY_NAME = workload(
    "by-name", hostname="db.example.org", tunnel=TunnelProtocol.NONE, services=EXTERNAL, node=""
)
BY_ADDRESS = workload("by-address", "2001:db8::7", tunnel=TunnelProtocol.NONE, services=EXTERNAL, node="")
RANGE = Service(
    name="range",
    namespace="default",
    hostname="range.example.com",
    addresses=(VirtualAddress("", ipaddress.ip_address("198.51.100.0"), 24),),
    ports=(Port(22, 22),),
    load_balancing=LoadBalancing(mode=BalancingMode.PASSTHROUGH),
)
POLICIES = (
    Authorization(
        "only-client",
        "default",
        Scope.WORKLOAD_SELECTOR,
        Action.ALLOW,
        (
            Rule(
                (Clause((Match(principals=(Exact(CLIENT.identity.principal),), destination_ports=(8080,)),)),)
            ),
            Rule((Clause((Match(namespaces=(Prefix("team-"),)),)),)),
        ),
    ),
    Authorization(
        "no-outsiders",
        "default",
        Scope.WORKLOAD_SELECTOR,
        Action.DENY,
        (
            Rule(
                (
                    Clause((Match(not_principals=(Presence(),)),)),
                    Clause((Match(not_source_ips=(ipaddress.ip_network("10.0.0.0/8"),)),)),
                )
            ),
        ),
    ),
)
GUARD = workload(
    "guard", "10.244.1.4", node="node1", policies=("default/only-client", "default/no-outsiders")
)
SETTINGS = NodeSettings(node="node1")
VIEW = Snapshot(
    [CLIENT, NEAR, FAR, PLAIN, GUARD, BY_NAME, BY_ADDRESS, GATEWAY, REMOTE],
    [SERVICE, EMPTY, GUARDED, OUTSIDE, RANGE, EAST, ABROAD, ROUTED],
    POLICIES,
)
PODS = LocalPods(map(pod, (CLIENT, NEAR, GUARD)))
DESTINATIONS = {
    "tunnel": ("10.244.2.3", 8080),
    "same_node": ("10.244.1.3", 8080),
    "denied": ("10.244.1.4", 9090),
    "plain": ("10.244.2.4", 8080),
    "unknown": ("192.0.2.1", 443),
    "service": ("10.96.0.20", 80),
    "no_port": ("10.96.0.20", 81),
    "no_endpoint": ("10.96.0.21", 80),
    "waypoint": ("10.96.0.22", 80),
    "network": ("10.96.0.23", 80),
    "reserved": ("192.0.2.1", 15008),
    "outside": ("240.240.0.7", 5432),
    "inline": ("10.96.0.25", 80),
    "range": ("198.51.100.9", 22),
}


def secured(service: Service) -> tuple[PlannedResource, ...]:
    """What the client has for this service, with one server on another node."""
    server = workload("server", "10.244.2.7", node="node2", services={service.key: service.ports})
    name = names.destination(pod(CLIENT).key, service.addresses[0].address, 80)
    return node_proxy.inline_resources(name, Snapshot([CLIENT, server], [service]), PODS, SETTINGS)


def resources() -> dict[str, PlannedResource]:
    """Every case by the name of its golden file."""
    client = pod(CLIENT)
    found = {f"shared_{each.name}": each for each in node_proxy.shared_resources()}
    for label, local in (("open", client), ("guarded", pod(GUARD))):
        for each in node_proxy.pod_resources(local, VIEW, SETTINGS):
            found[f"{each.name.partition('|')[0]}_{label}"] = each
    for label, (address, port) in DESTINATIONS.items():
        name = names.destination(client.key, ipaddress.ip_address(address), port)
        found[f"dst_{label}"] = node_proxy.destination(name, VIEW, PODS, SETTINGS)
    name = names.destination(client.key, ipaddress.ip_address("10.96.0.25"), 80)
    for each in node_proxy.inline_resources(name, VIEW, PODS, SETTINGS):
        kind = each.type_url.rpartition(".")[2].lower()
        backend = each.name.split("/")[-1].partition(".")[0] if kind == "cluster" else ""
        found["_".join(filter(None, ("req", kind, backend)))] = each
    found["req_cluster_secured"] = next(each for each in secured(SECURED) if each.type_url == CLUSTER)
    found["req_logged"] = next(
        each for each in secured(LOGGED) if each.type_url == LISTENER and each.name.startswith("req|")
    )
    name = names.resolved(client.key, BY_NAME.hostname, 6432)
    found["dns_name"] = node_proxy.destination(name, VIEW, PODS, SETTINGS)
    name = names.tunnel(FAR.identity, SERVICE.key)
    found["hbone_service"] = node_proxy.destination(name, VIEW, PODS, SETTINGS)
    assert REMOTE.network_gateway is not None
    through = names.Inner(4, f"{ABROAD.hostname}:80", ABROAD.key, REMOTE.network_gateway)
    found["net_network"] = node_proxy.destination(names.inner(through), VIEW, PODS, SETTINGS)
    behind = workload("behind", "10.244.1.5", node="node1", application_tunnel=ApplicationTunnel(TOLD, 15088))
    for each in node_proxy.pod_resources(pod(behind), Snapshot([behind]), SETTINGS):
        if each.name.startswith(("handed|", "app|")):
            kind = "into" if (each.name[0], each.type_url) == ("h", CLUSTER) else each.name.partition("|")[0]
            found[f"{kind}_told"] = each
    # These differ from the open pod's in names only.
    del found["in_guarded"], found["out_guarded"], found["local_guarded"]
    found["matcher_open"] = found["tunnelled_open"] = found["out_open"]
    for label in ("service", "waypoint", "plain"):
        address, port = DESTINATIONS[label]
        name = names.tunnelled(client.key, ipaddress.ip_address(address), port)
        found[f"tun_{label}"] = node_proxy.destination(name, VIEW, PODS, SETTINGS)
    address, port = DESTINATIONS["service"]
    name = names.destination(client.key, ipaddress.ip_address(address), port)
    found["dst_divided"] = node_proxy.destination(name, VIEW, PODS, SETTINGS, is_divided=True)
    shares = {
        (asked.address, asked.port): share
        for address, port in map(DESTINATIONS.__getitem__, ("tunnel", "service", "plain", "denied"))
        for asked in [names.Destination(client.key, ipaddress.ip_address(address), port)]
        if (share := node_proxy.tunnelled_share(asked, VIEW, PODS, SETTINGS))
    }
    (found["matcher_tunnelled"],) = node_proxy.outbound_resources(client, VIEW, SETTINGS, tunnelled=shares)
    few = [(ipaddress.ip_address("10.96.0.20"), 80), (ipaddress.ip_address("fd00::1"), 443)]
    (found["matcher_limited"],) = node_proxy.outbound_resources(client, VIEW, SETTINGS, few)
    return found
