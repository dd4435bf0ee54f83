"""`/config_dump` in ztunnel's form (`src/admin.rs`), so that `istioctl ztunnel-config` reads it. Pure.

Streamed value by value, because a node knows the whole mesh and must not hold it in memory at once.
"""

import base64
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from ambit.agent.certificates import CertificateState
from ambit.agent.csr import Certificate
from ambit.ca import bundle
from ambit.core.identity import Identity
from ambit.model.policy import Authorization, Exact, Match, Prefix, Presence, StringMatch, Suffix
from ambit.model.service import BalancingMode, IpFamilies, Service, VirtualAddress
from ambit.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    NetworkMode,
    Port,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from ambit.node.state.mesh import MeshState

_FAMILIES = {IpFamilies.IPV4_ONLY: "IPv4", IpFamilies.IPV6_ONLY: "IPv6", IpFamilies.DUAL: "Dual"}


def config_dump(
    state: MeshState,
    certificates: Iterable[CertificateState],
    pods: Mapping[str, Any],
    config: Mapping[str, Any],
    version: Mapping[str, str],
    now: float,
) -> Iterator[bytes]:
    """Parts of one JSON document."""
    encode = msgspec.json.encode
    yield b'{"workloads":['
    yield from _joined(encode(workload(each)) for each in state.addresses() if isinstance(each, Workload))
    yield b'],"services":['
    yield from _joined(
        encode(service(each, state.endpoints(each)))
        for each in state.addresses()
        if isinstance(each, Service)
    )
    yield b'],"policies":['
    yield from _joined(encode(policy(each)) for each in state.authorizations())
    yield b'],"certificates":' + encode([certificate(each, now) for each in certificates])
    yield b',"workloadState":' + encode(pods)
    yield b',"stagedServices":{},"staticConfig":{},"version":' + encode(version)
    yield b',"config":' + encode(config) + b"}\n"


def workload(value: Workload) -> dict[str, Any]:
    return _full(
        {
            "uid": value.uid,
            "workloadIps": [str(address) for address in value.addresses],
            "protocol": "HBONE" if value.tunnel is TunnelProtocol.HBONE else "TCP",
            "networkMode": "HostNetwork" if value.network_mode is NetworkMode.HOST_NETWORK else "Standard",
            "name": value.name,
            "namespace": value.namespace,
            "trustDomain": value.identity.trust_domain,
            "serviceAccount": value.identity.service_account,
            "network": value.network,
            "workloadName": value.workload_name,
            "workloadType": WorkloadType(value.workload_type).name.lower(),
            "canonicalName": value.canonical_name,
            "canonicalRevision": value.canonical_revision,
            "hostname": value.hostname,
            "node": value.node,
            "nativeTunnel": value.native_tunnel,
            "authorizationPolicies": list(value.policies),
            "status": "Healthy" if value.status is WorkloadStatus.HEALTHY else "Unhealthy",
            "clusterId": value.cluster_id,
            "locality": msgspec.to_builtins(value.locality),
            "services": sorted(value.services),
            "capacity": value.capacity,
            "waypoint": _gateway(value.waypoint),
            "networkGateway": _gateway(value.network_gateway),
            "applicationTunnel": _application_tunnel(value.application_tunnel),
        },
        keep={"network", "workloadIps", "capacity"},
    )


def service(value: Service, endpoints: Iterable[Workload]) -> dict[str, Any]:
    return _full(
        {
            "name": value.name,
            "namespace": value.namespace,
            "hostname": value.hostname,
            "vips": [_virtual(address) for address in value.addresses if address.prefix is None],
            "cidrVips": [_virtual(address) for address in value.addresses if address.prefix is not None],
            "ports": _ports(value.ports),
            "endpoints": {
                each.uid: {
                    "workloadUid": each.uid,
                    "port": _ports(each.services.get(value.key, ())),
                    "status": "Healthy" if each.status is WorkloadStatus.HEALTHY else "Unhealthy",
                }
                for each in endpoints
            },
            "subjectAltNames": list(value.subject_alt_names),
            "waypoint": _gateway(value.waypoint),
            "loadBalancer": _balancer(value),
            "sessionAffinity": "ClientIP" if value.session_affinity else None,
            "ipFamilies": _FAMILIES.get(value.ip_families),
            "canonical": value.canonical,
            "weightedWaypoints": [
                {**(_gateway(each.gateway) or {}), "weight": each.weight} for each in value.weighted_waypoints
            ],
        },
        keep={"vips", "ports", "endpoints"},
    )


def _application_tunnel(value: ApplicationTunnel | None) -> dict[str, Any] | None:
    return {"protocol": value.protocol.name, "port": value.port or None} if value is not None else None


def policy(value: Authorization) -> dict[str, Any]:
    return {
        "name": value.name,
        "namespace": value.namespace,
        "scope": value.scope.name.title().replace("_", ""),
        "action": value.action.name.title(),
        "dryRun": value.dry_run,
        "rules": [
            [[_match(match) for match in clause.matches] for clause in rule.clauses] for rule in value.rules
        ],
    }


def certificate(value: CertificateState, now: float) -> dict[str, Any]:
    """ztunnel's fields; `valid`, `ends`, `renewal` (seconds since 1970), `root` (serial number of the one in use) and
    `problem` are ours."""
    held = value.certificate
    ours = {"renewal": value.due, **({"problem": value.problem} if value.problem else {})}
    if held is None:
        state = f"Unavailable: {value.problem}" if value.problem else "Initializing"
        return {"identity": value.identity.uri, "state": state, "certChain": [], "rootCerts": [], **ours}
    chain = x509.load_pem_x509_certificates(held.chain)
    roots = bundle.certificates(held.roots.decode())
    used = next((root for root in roots if _issued(root, chain[-1])), None)
    return {
        "identity": value.identity.uri,
        "state": "Available" if held.valid(now) else "Unavailable: the certificate is not valid now",
        "certChain": [_pem(each, now) for each in chain],
        "rootCerts": [_pem(each, now) for each in roots],
        "root": str(used.serial_number) if used is not None else "",
        **ours,
    }


def _issued(root: x509.Certificate, last: x509.Certificate) -> bool:
    try:
        last.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class CertificateView(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One line of `/certs`. Times are UTC; `remaining` is in seconds."""

    identity: Identity | str
    state: str
    serial: str = ""
    valid_from: str = ""
    valid_to: str = ""
    remaining: int = 0
    renewal: int = 0
    """Seconds until it is asked for again."""
    signer: str = ""
    """Key identifier of who signed it."""
    problem: str = ""


def certificate_view(value: CertificateState, now: float) -> CertificateView:
    held: Certificate | None = value.certificate
    if held is None:
        return CertificateView(
            value.identity.uri,
            "unavailable" if value.problem else "requested",
            renewal=max(0, int(value.due - now)),
            problem=value.problem,
        )
    return CertificateView(
        value.identity.uri,
        "valid" if held.valid(now) else "expired",
        f"{held.serial:x}",
        _stamp(held.not_before),
        _stamp(held.not_after),
        int(held.not_after - now),
        max(0, int(value.due - now)),
        held.signer,
        value.problem,
    )


def _match(value: Match) -> dict[str, Any]:
    found = {
        "namespaces": [_text(each) for each in value.namespaces],
        "notNamespaces": [_text(each) for each in value.not_namespaces],
        "principals": [_text(each) for each in value.principals],
        "notPrincipals": [_text(each) for each in value.not_principals],
        "sourceIps": [str(each) for each in value.source_ips],
        "notSourceIps": [str(each) for each in value.not_source_ips],
        "destinationIps": [str(each) for each in value.destination_ips],
        "notDestinationIps": [str(each) for each in value.not_destination_ips],
        "destinationPorts": list(value.destination_ports),
        "notDestinationPorts": list(value.not_destination_ports),
        "serviceAccounts": [
            {"namespace": each.namespace, "serviceAccount": each.service_account}
            for each in value.service_accounts
        ],
        "notServiceAccounts": [
            {"namespace": each.namespace, "serviceAccount": each.service_account}
            for each in value.not_service_accounts
        ],
    }
    return {key: values for key, values in found.items() if values}


def _text(value: StringMatch) -> Any:
    match value:
        case Exact(text):
            return {"Exact": text}
        case Prefix(text):
            return {"Prefix": text}
        case Suffix(text):
            return {"Suffix": text}
        case Presence():
            return "Presence"


def _balancer(value: Service) -> dict[str, Any] | None:
    balancing = value.load_balancing
    if balancing is None:
        return None
    mode = BalancingMode(balancing.mode).name.title() if balancing.mode else "Standard"
    return {
        "mode": mode,
        "routingPreferences": [scope.name.title() for scope in balancing.routing_preference],
        "healthPolicy": balancing.health_policy.name.title().replace("_", ""),
    }


def _gateway(value: GatewayAddress | None) -> dict[str, Any] | None:
    if value is None:
        return None
    name = (
        f"{value.namespace}/{value.hostname}" if value.address is None else f"{value.network}/{value.address}"
    )
    return {"destination": name, "hboneMtlsPort": value.port}


def _virtual(value: VirtualAddress) -> str:
    suffix = f"/{value.prefix}" if value.prefix is not None else ""
    return f"{value.network}/{value.address}{suffix}"


def _ports(ports: Iterable[Port]) -> dict[str, int]:
    return {str(port.service): port.target for port in ports}


def _pem(value: x509.Certificate, now: float) -> dict[str, Any]:
    begin, end = value.not_valid_before_utc.timestamp(), value.not_valid_after_utc.timestamp()
    return {
        "pem": base64.b64encode(value.public_bytes(serialization.Encoding.PEM)).decode(),
        "serialNumber": str(value.serial_number),
        "validFrom": _stamp(begin),
        "expirationTime": _stamp(end),
        "valid": begin <= now < end,
        "ends": end,
    }


def _stamp(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _full(values: dict[str, Any], keep: set[str]) -> dict[str, Any]:
    """Without empty values, as ztunnel leaves defaults out."""
    return {key: value for key, value in values.items() if value or key in keep}


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    for index, part in enumerate(parts):
        yield b"," + part if index else part
