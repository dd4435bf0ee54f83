"""A container's environment, as kubelet makes it. Pure: what must be fetched comes in as arguments.

Sources: kubernetes.io/docs/tasks/inject-data-application (env, envFrom, downward API), `$(VAR)` expansion as in
k8s.io/kubernetes third_party/forked/golang/expansion: `$$` is a literal dollar, an unknown reference stays as
it is.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ambit.core.errors import BadInput

_SYNTAX = re.compile(r"\$(\$|\(([^)]*)\))")
_INDEXED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_FACTORS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}


class MissingReference(BadInput):
    """A ConfigMap, Secret, key or field that the container needs is not there (yet)."""


class ServicePort(msgspec.Struct, frozen=True):
    port: int
    name: str = ""
    protocol: str = "TCP"


class ServiceLink(msgspec.Struct, frozen=True):
    """A Service as the environment shows it."""

    namespace: str
    name: str
    address: str
    ports: tuple[ServicePort, ...]


class Sources(msgspec.Struct, frozen=True):
    """Data of the ConfigMaps and Secrets that a pod's containers name; absent ones are not in the mappings."""

    config_maps: Mapping[str, Mapping[str, str]] = {}
    secrets: Mapping[str, Mapping[str, str]] = {}
    services: Sequence[ServiceLink] = ()


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`$(VAR)` becomes its value."""

    def replaced(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return environment.get(match.group(2), match.group(0))

    return _SYNTAX.sub(replaced, text)


def environment_of(
    pod: Mapping[str, Any], container: Mapping[str, Any], sources: Sources, base: Mapping[str, str]
) -> dict[str, str]:
    """`base` (the image's), service links, envFrom, env: later wins. Raises MissingReference."""
    result = dict(base)
    result |= service_links(pod, sources.services)
    for source in container.get("envFrom") or ():
        result |= _from_source(source, sources)
    for entry in container.get("env") or ():
        value = _value(pod, container, entry, sources, result)
        if value is not None:
            result[entry["name"]] = value
    return result


def service_links(pod: Mapping[str, Any], services: Sequence[ServiceLink]) -> dict[str, str]:
    """`<NAME>_SERVICE_HOST` and friends for the namespace's Services, unless `enableServiceLinks` is false."""
    if pod["spec"].get("enableServiceLinks") is False:
        return {}
    result: dict[str, str] = {}
    for service in services:
        if service.namespace != pod["metadata"]["namespace"] or not service.ports:
            continue
        name = service.name.upper().replace("-", "_")
        first = service.ports[0]
        result[f"{name}_SERVICE_HOST"] = service.address
        result[f"{name}_SERVICE_PORT"] = str(first.port)
        host = f"[{service.address}]" if ":" in service.address else service.address
        result[f"{name}_PORT"] = f"{first.protocol.lower()}://{host}:{first.port}"
        for port in service.ports:
            if port.name:
                result[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
            prefix = f"{name}_PORT_{port.port}_{port.protocol.upper()}"
            result[prefix] = f"{port.protocol.lower()}://{host}:{port.port}"
            result[f"{prefix}_PROTO"] = port.protocol.lower()
            result[f"{prefix}_PORT"] = str(port.port)
            result[f"{prefix}_ADDR"] = service.address
    return result


def field(pod: Mapping[str, Any], path: str) -> str:
    """The value of a downward API `fieldPath`. Raises MissingReference for one that Kubernetes does not know."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    indexed = _INDEXED.fullmatch(path)
    if indexed:
        return str((metadata.get(indexed.group(1)) or {}).get(indexed.group(2), ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = sorted((metadata.get(path.removeprefix("metadata.")) or {}).items())
        return "\n".join(f'{key}="{_escaped(str(value))}"' for key, value in pairs)
    known = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": ",".join(item["ip"] for item in status.get("hostIPs") or ()),
        "status.podIP": status.get("podIP"),
        "status.podIPs": ",".join(item["ip"] for item in status.get("podIPs") or ()),
    }
    if path not in known:
        raise MissingReference(f"unknown field path {path!r}")
    return str(known[path] or "")


def resource_field(
    container: Mapping[str, Any], reference: Mapping[str, Any], capacity: Mapping[str, str]
) -> str:
    """The value of a `resourceFieldRef`; a missing limit means the node's capacity, as in Kubernetes."""
    kind, _, name = str(reference["resource"]).partition(".")
    resources = container.get("resources") or {}
    quantity = (resources.get(kind) or {}).get(name) or (capacity.get(name, "0") if kind == "limits" else "0")
    divisor = parse_quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(-int(-parse_quantity(str(quantity)) // divisor))


def parse_quantity(text: str) -> float:
    """A Kubernetes quantity as a number. Raises MissingReference when it is none."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    if match is None or match.group(2) not in _FACTORS:
        raise MissingReference(f"bad quantity {text!r}")
    return float(match.group(1)) * _FACTORS[match.group(2)]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _from_source(source: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind, store in (("configMapRef", sources.config_maps), ("secretRef", sources.secrets)):
        reference = source.get(kind)
        if reference is None:
            continue
        data = store.get(reference["name"])
        if data is None:
            if reference.get("optional"):
                continue
            raise MissingReference(f'{_WORD[kind]} "{reference["name"]}" not found')
        return {prefix + key: value for key, value in data.items()}
    return {}


_WORD = {
    "configMapRef": "configmap",
    "secretRef": "secret",
    "configMapKeyRef": "configmap",
    "secretKeyRef": "secret",
}


def _value(
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    entry: Mapping[str, Any],
    sources: Sources,
    so_far: Mapping[str, str],
) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(str(entry.get("value") or ""), so_far)
    if "fieldRef" in origin:
        return field(pod, origin["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in origin:
        return resource_field(container, origin["resourceFieldRef"], {})
    for kind, store in (("configMapKeyRef", sources.config_maps), ("secretKeyRef", sources.secrets)):
        reference = origin.get(kind)
        if reference is None:
            continue
        data = store.get(reference["name"])
        if data is not None and reference["key"] in data:
            return data[reference["key"]]
        if reference.get("optional"):
            return None
        what = f'{_WORD[kind]} "{reference["name"]}"'
        raise MissingReference(
            f"{what} not found" if data is None else f"couldn't find key {reference['key']} in {what}"
        )
    return None
