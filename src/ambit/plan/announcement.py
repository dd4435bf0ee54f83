"""What the request of a tunnel says about its client, and what others' requests say. Pure.

`baggage` (W3C) describes the client's workload in words of OpenTelemetry, `forwarded` (RFC 7239) names its address and
the service that it asked for, as ztunnel writes them (`src/baggage.rs`, `outbound.rs`). Neither is ever taken for an
identity: that is in the certificate.
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

from ambit.envoy import tcp_proxy
from ambit.envoy.logs import access_log
from ambit.model.workload import Locality, TunnelProtocol, Workload, WorkloadType

_CLUSTER = "k8s.cluster.name"
_NAMESPACE = "k8s.namespace.name"
_SERVICE, _REVISION = "service.name", "service.version"
_LONGEST = 253
"""Characters of a value; no name of Kubernetes has more."""
_REGION, _ZONE = "cloud.region", "cloud.availability_zone"
_KINDS: Mapping[WorkloadType, str] = {kind: f"k8s.{kind.name.lower()}.name" for kind in WorkloadType}


class Baggage(msgspec.Struct, frozen=True):
    """What a client says of itself; empty what it does not say."""

    cluster: str = ""
    namespace: str = ""
    workload_name: str = ""
    workload_type: WorkloadType = WorkloadType.POD
    canonical_name: str = ""
    canonical_revision: str = ""
    locality: Locality = Locality()


def baggage(workload: Workload) -> str:
    """The header's value. What is empty is left out."""
    items = {
        _CLUSTER: workload.cluster_id,
        _NAMESPACE: workload.namespace,
        _KINDS[workload.workload_type]: workload.workload_name,
        _SERVICE: workload.canonical_name,
        _REVISION: workload.canonical_revision,
        _REGION: workload.locality.region,
        _ZONE: workload.locality.zone,
    }
    return ",".join(f"{key}={quote(value, safe='/:')}" for key, value in items.items() if value)


def parse_baggage(text: str) -> Baggage:
    """What the header says, whoever wrote it: unknown items and nonsense are left out, of repeated ones the first
    counts."""
    items: dict[str, str] = {}
    for item in text.split(","):
        key, _, quoted = item.partition(";")[0].partition("=")
        value = unquote(quoted.strip())
        if len(value) <= _LONGEST and value.isprintable():
            items.setdefault(key.strip(), value)
    kind = next((kind for kind, key in _KINDS.items() if key in items), WorkloadType.POD)
    return Baggage(
        cluster=items.get(_CLUSTER, ""),
        namespace=items.get(_NAMESPACE, ""),
        workload_name=items.get(_KINDS[kind], ""),
        workload_type=kind,
        canonical_name=items.get(_SERVICE, ""),
        canonical_revision=items.get(_REVISION, ""),
        locality=Locality(items.get(_REGION, ""), items.get(_ZONE, "")),
    )


def endpoint_tags(workload: Workload) -> dict[str, str]:
    """What records of requests say of the endpoint that answered: in the same words; its identity only if it proves
    one."""
    proven = workload.identity.uri if workload.tunnel is TunnelProtocol.HBONE else ""
    return {access_log.KNOWN: access_log.known(workload.name, proven, baggage(workload))}


def endpoint_tags_for_spans(workload: Workload) -> dict[str, str]:
    """As `endpoint_tags`, and the same in parts: of these each costs Envoy 1.3 KiB for every endpoint."""
    return {**endpoint_tags(workload), **parts(workload)}


def parts(workload: Workload) -> dict[str, str]:
    """What spans say of a workload, as far as it is known."""
    found = {
        "cluster_id": workload.cluster_id,
        "namespace": workload.namespace,
        "workload": workload.workload_name,
        "canonical_service": workload.canonical_name,
        "canonical_revision": workload.canonical_revision,
    }
    return {name: value for name, value in found.items() if value}


def tags(workload: Workload | None, service: str) -> dict[str, str]:
    """What a tunnel's request is made of (`tcp_proxy`), for tunnels of this pod (its record, if known) to a service
    (`<namespace>/<hostname>`; empty for an address of a workload)."""
    host = service.partition("/")[2]
    return {
        **({tcp_proxy.HOST: f";host={host}"} if host else {}),
        **({tcp_proxy.BAGGAGE: baggage(workload)} if workload is not None else {}),
    }
