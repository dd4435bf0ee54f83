"""`istio.workload.Address` to and from `ambit.model` workloads and services.

Defaults on receipt are ztunnel's: trust domain `cluster.local`, service account `default`, cluster
`Kubernetes`, capacity 1. What Istio's messages have no field for travels as an extension, which a ztunnel passes over.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from ambit.core.identity import Identity
from ambit.core.names import DEFAULT_CLUSTER_ID, DEFAULT_TRUST_DOMAIN
from ambit.model import service as services
from ambit.model.backend_tls import BackendTls
from ambit.model.inline_rules import InlineRules
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import (
    AppProtocol,
    IpFamilies,
    LoadBalancing,
    Service,
    VirtualAddress,
    Visibility,
    WeightedWaypoint,
)
from ambit.model.telemetry import InlineTelemetry
from ambit.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Locality,
    NetworkMode,
    Port,
    TunnelledAs,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from ambit.xds import fields, rules
from ambit.xds.protos import workload_pb2 as pb

T = TypeVar("T")
_AFFINITY, _BY_CLIENT = "ambit.session-affinity", "ClientIP"
"""An extension of a service, and its one value: that of the Kubernetes Service's field."""
_INLINE = "ambit.inline-routes"
"""An extension of a service whose callers' nodes route requests: its tables, as JSON."""
_TLS = "ambit.backend-tls"
"""An extension of a service whose servers are spoken to with TLS: ports, and how, as JSON. Roots can be long, and ports
many, so what several ports have in common is said once: every node is sent it."""
_TELEMETRY = "ambit.inline-telemetry"
"""Of one whose requests nodes read: what they tell of them, as JSON."""
_RULES = "ambit.inline-rules"
"""And one of a service whose pods' nodes enforce rules about requests (`ambit.xds.rules`)."""


def encode_workload(workload: Workload) -> bytes:
    """The `Address` message that holds this workload."""
    encoded = pb.Workload(
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        addresses=[address.packed for address in workload.addresses],
        hostname=workload.hostname,
        network=workload.network,
        tunnel_protocol=fields.number(workload.tunnel),
        trust_domain=workload.identity.trust_domain,
        service_account=workload.identity.service_account,
        waypoint=_gateway(workload.waypoint),
        network_gateway=_gateway(workload.network_gateway),
        node=workload.node,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        workload_type=fields.number(workload.workload_type),
        workload_name=workload.workload_name,
        native_tunnel=workload.native_tunnel,
        authorization_policies=workload.policies,
        status=fields.number(workload.status),
        cluster_id=workload.cluster_id,
        services={name: pb.PortList(ports=_ports(ports)) for name, ports in workload.services.items()},
        network_mode=fields.number(workload.network_mode),
    )
    if workload.locality != Locality():
        encoded.locality.region = workload.locality.region
        encoded.locality.zone = workload.locality.zone
        encoded.locality.subzone = workload.locality.subzone
    if workload.application_tunnel is not None:
        encoded.application_tunnel.SetInParent()
        encoded.application_tunnel.protocol = fields.number(workload.application_tunnel.protocol)
        encoded.application_tunnel.port = workload.application_tunnel.port
    if workload.capacity != 1:
        encoded.capacity.value = workload.capacity
    return pb.Address(workload=encoded).SerializeToString(deterministic=True)


def encode_service(service: Service) -> bytes:
    """The `Address` message that holds this service."""
    encoded = pb.Service(
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=[_virtual(address) for address in service.addresses],
        ports=_ports(service.ports, service.app_protocols),
        subject_alt_names=service.subject_alt_names,
        waypoint=_gateway(service.waypoint),
        ip_families=fields.number(service.ip_families),
        canonical=service.canonical,
        visibility=fields.number(service.visibility),
        ingress_use_waypoint=service.ingress_use_waypoint,
        weighted_waypoints=[
            pb.WeightedWaypoint(destination=_gateway(each.gateway), weight=each.weight)
            for each in service.weighted_waypoints
        ],
    )
    balancing = service.load_balancing
    if balancing is not None:
        encoded.load_balancing.SetInParent()
        encoded.load_balancing.routing_preference.extend(
            fields.number(scope) for scope in balancing.routing_preference
        )
        encoded.load_balancing.mode = fields.number(balancing.mode)
        encoded.load_balancing.health_policy = fields.number(balancing.health_policy)
    if service.session_affinity:
        encoded.extensions.add(name=_AFFINITY).config.Pack(StringValue(value=_BY_CLIENT))
    if service.inline is not None:
        tables = BytesValue(value=msgspec.json.encode(service.inline))
        encoded.extensions.add(name=_INLINE).config.Pack(tables)
    if service.backend_tls:
        spoken = BytesValue(value=msgspec.json.encode(_by_kind(service.backend_tls)))
        encoded.extensions.add(name=_TLS).config.Pack(spoken)
    if service.telemetry is not None:
        told = BytesValue(value=msgspec.json.encode(service.telemetry, order="deterministic"))
        encoded.extensions.add(name=_TELEMETRY).config.Pack(told)
    if service.rules is not None:
        encoded.extensions.add(name=_RULES).config.Pack(BytesValue(value=rules.encode(service.rules)))
    return pb.Address(service=encoded).SerializeToString(deterministic=True)


def decode_address(data: bytes) -> Workload | Service:
    """Raises ValueError naming the field."""
    address = fields.parse(pb.Address, data)
    match address.WhichOneof("type"):
        case "workload":
            return _read_workload(address.workload)
        case "service":
            return _read_service(address.service)
        case _:
            raise ValueError("neither a workload nor a service")


def _read_workload(workload: pb.Workload) -> Workload:
    for name in workload.services:
        if "/" not in name:
            raise ValueError(f"services: {name!r} is not <namespace>/<hostname>")
    return Workload(
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        identity=Identity(
            workload.trust_domain or DEFAULT_TRUST_DOMAIN,
            workload.namespace,
            workload.service_account or "default",
        ),
        addresses=tuple(fields.address(address, "addresses") for address in workload.addresses),
        hostname=workload.hostname,
        network=workload.network,
        tunnel=fields.enum(TunnelProtocol, workload.tunnel_protocol, "tunnel_protocol"),
        waypoint=_read_gateway(workload.waypoint, "waypoint") if workload.HasField("waypoint") else None,
        network_gateway=(
            _read_gateway(workload.network_gateway, "network_gateway")
            if workload.HasField("network_gateway")
            else None
        ),
        node=workload.node,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        workload_type=fields.enum(WorkloadType, workload.workload_type, "workload_type"),
        workload_name=workload.workload_name,
        native_tunnel=workload.native_tunnel,
        policies=tuple(workload.authorization_policies),
        status=fields.enum(WorkloadStatus, workload.status, "status"),
        cluster_id=workload.cluster_id or DEFAULT_CLUSTER_ID,
        services={name: _read_ports(entry.ports, "services") for name, entry in workload.services.items()},
        locality=Locality(workload.locality.region, workload.locality.zone, workload.locality.subzone),
        network_mode=fields.enum(NetworkMode, workload.network_mode, "network_mode"),
        capacity=workload.capacity.value if workload.HasField("capacity") else 1,
        application_tunnel=(
            _read_application_tunnel(workload.application_tunnel)
            if workload.HasField("application_tunnel")
            else None
        ),
    )


def _read_service(service: pb.Service) -> Service:
    return Service(
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=tuple(_read_virtual(address, "addresses") for address in service.addresses),
        ports=_read_ports(service.ports, "ports"),
        app_protocols={
            port.service_port: fields.enum(AppProtocol, port.app_protocol, "ports.app_protocol")
            for port in service.ports
            if port.app_protocol
        },
        subject_alt_names=tuple(service.subject_alt_names),
        waypoint=_read_gateway(service.waypoint, "waypoint") if service.HasField("waypoint") else None,
        load_balancing=(
            _read_balancing(service.load_balancing) if service.HasField("load_balancing") else None
        ),
        ip_families=fields.enum(IpFamilies, service.ip_families, "ip_families"),
        canonical=service.canonical,
        # An unknown number is a kind that came after this: everybody's, as ztunnel takes it.
        visibility=(
            Visibility.NAMESPACE if service.visibility == pb.Service.NAMESPACE else Visibility.PUBLIC
        ),
        session_affinity=_has_affinity(service),
        weighted_waypoints=tuple(
            WeightedWaypoint(_read_gateway(each.destination, "weighted_waypoints"), each.weight)
            for each in service.weighted_waypoints
        ),
        ingress_use_waypoint=service.ingress_use_waypoint,
        backend_tls={
            port: each
            for ports, each in _read_json(service, _TLS, list[tuple[list[int], BackendTls]]) or ()
            for port in ports
        },
        inline=_read_json(service, _INLINE, tuple[ServiceRoutes, ...]),
        rules=_read_rules(service),
        telemetry=_read_json(service, _TELEMETRY, InlineTelemetry),
    )


def _by_kind(given: Mapping[int, BackendTls]) -> list[tuple[list[int], BackendTls]]:
    ports: dict[BackendTls, list[int]] = {}
    for port, each in sorted(given.items()):
        ports.setdefault(each, []).append(port)
    return [(several, each) for each, several in ports.items()]


def _read_json(service: pb.Service, name: str, kind: type[T]) -> T | None:
    value = BytesValue()
    for each in service.extensions:
        if each.name == name and each.config.Unpack(value):
            try:
                return msgspec.json.decode(value.value, type=kind)
            except msgspec.MsgspecError as problem:
                raise ValueError(f"extensions: {name}: {problem}") from None
    return None


def _read_rules(service: pb.Service) -> InlineRules | None:
    value = BytesValue()
    for each in service.extensions:
        if each.name == _RULES and each.config.Unpack(value):
            try:
                return rules.decode(value.value)
            except ValueError as problem:
                raise ValueError(f"extensions: {_RULES}: {problem}") from None
    return None


def _has_affinity(service: pb.Service) -> bool:
    """Other values are of a later version: as without."""
    value = StringValue()
    return any(
        each.name == _AFFINITY and each.config.Unpack(value) and value.value == _BY_CLIENT
        for each in service.extensions
    )


def _read_application_tunnel(tunnel: pb.ApplicationTunnel) -> ApplicationTunnel:
    where = "application_tunnel"
    return ApplicationTunnel(
        fields.enum(TunnelledAs, tunnel.protocol, f"{where}.protocol"),
        fields.port(tunnel.port, f"{where}.port"),
    )


def _read_balancing(balancing: pb.LoadBalancing) -> LoadBalancing:
    where = "load_balancing"
    return LoadBalancing(
        routing_preference=tuple(
            fields.enum(services.Scope, scope, f"{where}.routing_preference")
            for scope in balancing.routing_preference
        ),
        mode=fields.enum(services.BalancingMode, balancing.mode, f"{where}.mode"),
        health_policy=fields.enum(services.HealthPolicy, balancing.health_policy, f"{where}.health_policy"),
    )


def _ports(ports: Iterable[Port], protocols: Mapping[int, AppProtocol] | None = None) -> list[pb.Port]:
    return [
        pb.Port(
            service_port=port.service,
            target_port=port.target,
            app_protocol=fields.number((protocols or {}).get(port.service, AppProtocol.UNKNOWN)),
        )
        for port in ports
    ]


def _read_ports(ports: Iterable[pb.Port], field: str) -> tuple[Port, ...]:
    return tuple(
        Port(
            fields.port(port.service_port, f"{field}.service_port"),
            fields.port(port.target_port, f"{field}.target_port"),
        )
        for port in ports
    )


def _virtual(address: VirtualAddress) -> pb.NetworkAddress:
    return pb.NetworkAddress(network=address.network, address=address.address.packed, length=address.prefix)


def _read_virtual(address: pb.NetworkAddress, field: str) -> VirtualAddress:
    parsed = fields.address(address.address, field)
    prefix = address.length if address.HasField("length") else None
    if prefix is not None and prefix > parsed.max_prefixlen:
        raise ValueError(f"{field}: {parsed}/{prefix} is longer than an address")
    return VirtualAddress(address.network, parsed, None if prefix == parsed.max_prefixlen else prefix)


def _gateway(gateway: GatewayAddress | None) -> pb.GatewayAddress | None:
    if gateway is None:
        return None
    if gateway.address is not None:
        return pb.GatewayAddress(
            address=pb.NetworkAddress(network=gateway.network, address=gateway.address.packed),
            hbone_mtls_port=gateway.port,
        )
    return pb.GatewayAddress(
        hostname=pb.NamespacedHostname(namespace=gateway.namespace, hostname=gateway.hostname),
        hbone_mtls_port=gateway.port,
    )


def _read_gateway(gateway: pb.GatewayAddress, field: str) -> GatewayAddress:
    port = fields.port(gateway.hbone_mtls_port, f"{field}.hbone_mtls_port")
    match gateway.WhichOneof("destination"):
        case "hostname":
            return GatewayAddress(
                port, namespace=gateway.hostname.namespace, hostname=gateway.hostname.hostname
            )
        case "address":
            return GatewayAddress(
                port,
                network=gateway.address.network,
                address=fields.address(gateway.address.address, f"{field}.address"),
            )
        case _:
            raise ValueError(f"{field}: a gateway without a destination")
