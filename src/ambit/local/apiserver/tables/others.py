"""Columns of services, endpoints, configuration, access control and other built-in kinds."""

from typing import Any

from ambit.local.apiserver.scale import selector_text
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.tables.columns import (
    AGE,
    CREATED,
    NAME,
    NONE,
    Column,
    at,
    count,
    number,
    selector,
    since,
)


def _external(body: Json) -> str:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    given = list(spec.get("externalIPs") or [])
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or NONE)
    if spec.get("type") == "LoadBalancer":
        found = [
            one.get("ip") or one.get("hostname") or ""
            for one in (status.get("loadBalancer") or {}).get("ingress") or ()
        ]
        return ",".join([*found, *given]) or "<pending>"
    return ",".join(given) or NONE


def _ports(body: Json) -> str:
    texts = []
    for port in (body.get("spec") or {}).get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or NONE


def _shorten(items: list[str], limit: int) -> str:
    if not items:
        return NONE
    more = len(items) - limit
    return ",".join(items[:limit]) + (f" + {more} more..." if more > 0 else "")


def _endpoints(body: Json) -> str:
    found = []
    for subset in body.get("subsets") or ():
        addresses = [one.get("ip", "") for one in subset.get("addresses") or ()]
        for port in subset.get("ports") or ():
            found += [f"{one}:{port.get('port')}" for one in addresses]
        if not subset.get("ports"):
            found += addresses
    return _shorten(found, 3)


def _slice_ports(body: Json) -> str:
    return _shorten([str(port.get("port", "*")) for port in body.get("ports") or ()] or ["<unset>"], 3)


def _slice_endpoints(body: Json) -> str:
    addresses = [one for endpoint in body.get("endpoints") or () for one in endpoint.get("addresses") or ()]
    return _shorten(addresses, 3) if addresses else "<unset>"


def _data(body: Json) -> int:
    return len(body.get("data") or {}) + len(body.get("binaryData") or {})


def _event_object(body: Json) -> str:
    found = body.get("involvedObject") or body.get("regarding") or {}
    return f"{str(found.get('kind', '')).lower()}/{found.get('name', '')}"


def _event_seen(*fields: str) -> Any:
    def cell(body: Json) -> str:
        stamp = next((body[field] for field in fields if body.get(field)), None)
        stamp = stamp or (body.get("series") or {}).get("lastObservedTime") or body.get("eventTime")
        return since(stamp or body["metadata"].get("creationTimestamp"))

    return cell


def _event_source(body: Json) -> str:
    source = body.get("source") or body.get("deprecatedSource") or {}
    names = [source.get("component") or body.get("reportingComponent") or "", source.get("host") or ""]
    return ", ".join(one for one in names if one)


def _role(body: Json) -> str:
    reference = body.get("roleRef") or {}
    return f"{reference.get('kind')}/{reference.get('name')}"


def _subjects(kind: str) -> Any:
    def cell(body: Json) -> str:
        found = [one for one in body.get("subjects") or () if one.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{one.get('namespace')}/{one['name']}" for one in found)
        return ", ".join(one["name"] for one in found)

    return cell


def _hosts(body: Json) -> str:
    rules = (body.get("spec") or {}).get("rules") or ()
    return _shorten([one.get("host") or "*" for one in rules] or ["*"], 3)


def _ingress_address(body: Json) -> str:
    found = ((body.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(one.get("ip") or one.get("hostname") or "" for one in found)


def _policy_pods(body: Json) -> str:
    return selector_text((body.get("spec") or {}).get("podSelector") or {}) or NONE


_BINDING = (
    NAME,
    Column("Role", _role),
    AGE,
    Column("Users", _subjects("User"), 1),
    Column("Groups", _subjects("Group"), 1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), 1),
)
_WEBHOOKS = (NAME, Column("Webhooks", count("webhooks"), type="integer"), AGE)
_GROUP = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

COLUMNS: dict[str, tuple[Column, ...]] = {
    "services": (
        NAME,
        Column("Type", at("spec", "type")),
        Column("Cluster-IP", at("spec", "clusterIP", default=NONE)),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        AGE,
        Column("Selector", selector, 1),
    ),
    "endpoints": (NAME, Column("Endpoints", _endpoints), AGE),
    "endpointslices.discovery.k8s.io": (
        NAME,
        Column("AddressType", at("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
    "namespaces": (NAME, Column("Status", at("status", "phase")), AGE),
    "configmaps": (NAME, Column("Data", _data, type="integer"), AGE),
    "secrets": (NAME, Column("Type", at("type")), Column("Data", _data, type="integer"), AGE),
    "serviceaccounts": (NAME, Column("Secrets", count("secrets"), type="integer"), AGE),
    "events": (
        Column("Last Seen", _event_seen("lastTimestamp", "deprecatedLastTimestamp")),
        Column("Type", at("type")),
        Column("Reason", at("reason")),
        Column("Object", _event_object),
        Column("Subobject", at("involvedObject", "fieldPath"), 1),
        Column("Source", _event_source, 1),
        Column("Message", lambda body: str(body.get("message") or body.get("note") or "").strip()),
        Column("First Seen", _event_seen("firstTimestamp", "deprecatedFirstTimestamp"), 1),
        Column("Count", lambda body: body.get("count") or body.get("deprecatedCount") or 1, 1),
        Column("Name", at("metadata", "name"), 1),
    ),
    "ingresses.networking.k8s.io": (
        NAME,
        Column("Class", at("spec", "ingressClassName", default=NONE)),
        Column("Hosts", _hosts),
        Column("Address", _ingress_address),
        Column("Ports", lambda body: "80, 443" if (body.get("spec") or {}).get("tls") else "80"),
        AGE,
    ),
    "ingressclasses.networking.k8s.io": (NAME, Column("Controller", at("spec", "controller")), AGE),
    "networkpolicies.networking.k8s.io": (NAME, Column("Pod-Selector", _policy_pods), AGE),
    "leases.coordination.k8s.io": (NAME, Column("Holder", at("spec", "holderIdentity")), AGE),
    "customresourcedefinitions.apiextensions.k8s.io": (NAME, CREATED),
    f"clusterroles.{_GROUP}": (NAME, CREATED),
    f"roles.{_GROUP}": (NAME, CREATED),
    f"clusterrolebindings.{_GROUP}": _BINDING,
    f"rolebindings.{_GROUP}": _BINDING,
    f"mutatingwebhookconfigurations.{_ADMISSION}": _WEBHOOKS,
    f"validatingwebhookconfigurations.{_ADMISSION}": _WEBHOOKS,
    "poddisruptionbudgets.policy": (
        NAME,
        Column("Min Available", at("spec", "minAvailable", default="N/A")),
        Column("Max Unavailable", at("spec", "maxUnavailable", default="N/A")),
        number("Allowed Disruptions", "status", "disruptionsAllowed"),
        AGE,
    ),
    "storageclasses.storage.k8s.io": (
        NAME,
        Column("Provisioner", at("provisioner")),
        Column("ReclaimPolicy", at("reclaimPolicy", default="Delete")),
        Column("VolumeBindingMode", at("volumeBindingMode", default="Immediate")),
        AGE,
    ),
    "persistentvolumeclaims": (
        NAME,
        Column("Status", at("status", "phase")),
        Column("Volume", at("spec", "volumeName")),
        AGE,
    ),
    "priorityclasses.scheduling.k8s.io": (
        NAME,
        number("Value", "value"),
        Column("Global-Default", at("globalDefault", default=False), type="boolean"),
        AGE,
    ),
}
