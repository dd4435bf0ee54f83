"""Discovery documents, classic and aggregated (apidiscovery.k8s.io/v2), from the registry."""

from typing import Any

from ambit.local.apiserver.resources import Registry, Resource

AGGREGATED = "APIGroupDiscoveryList"
AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_SUBRESOURCES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "attach": ("", "PodAttachOptions", ("create", "get")),
    "binding": ("", "Binding", ("create",)),
    "ephemeralcontainers": ("", "Pod", ("get", "patch", "update")),
    "eviction": ("policy/v1", "Eviction", ("create",)),
    "exec": ("", "PodExecOptions", ("create", "get")),
    "finalize": ("", "Namespace", ("update",)),
    "log": ("", "Pod", ("get",)),
    "portforward": ("", "PodPortForwardOptions", ("create", "get")),
    "proxy": ("", "PodProxyOptions", ("create", "delete", "get", "patch", "update")),
    "resize": ("", "Pod", ("get", "patch", "update")),
    "token": ("authentication.k8s.io/v1", "TokenRequest", ("create",)),
    "scale": ("autoscaling/v1", "Scale", ("get", "patch", "update")),
}
_STATUS_VERBS = ("get", "patch", "update")

VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.2+ambit",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.24.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def core_versions() -> dict[str, Any]:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    }


def group(registry: Registry, name: str) -> dict[str, Any] | None:
    """GET /apis/GROUP; None when it is not served."""
    versions = registry.groups().get(name)
    if not name or versions is None:
        return None
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": listed,
        "preferredVersion": listed[0],
    }


def group_list(registry: Registry) -> dict[str, Any]:
    """GET /apis."""
    groups = [found for name in registry.groups() if (found := group(registry, name))]
    for one in groups:
        del one["kind"], one["apiVersion"]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _extra(resource: Resource) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(subresource, apiVersion, kind, verbs)."""
    found: list[tuple[str, str, str, tuple[str, ...]]] = []
    if resource.has_status:
        found.append(("status", resource.api_version, resource.kind, _STATUS_VERBS))
    names = [*resource.subresources, *(["scale"] if resource.scale else [])]
    for name in names:
        api_version, kind, verbs = _SUBRESOURCES[name]
        found.append((name, api_version or resource.api_version, kind, verbs))
    return sorted(found)


def resource_list(registry: Registry, group_name: str, version: str) -> dict[str, Any] | None:
    """GET /apis/GROUP/VERSION or /api/v1; None when it is not served."""
    listed: list[dict[str, Any]] = []
    found = registry.of(group_name, version)
    for resource in found:
        listed.append(_classic(resource))
        for name, api_version, kind, verbs in _extra(resource):
            prefix, _, short = api_version.rpartition("/")
            entry: dict[str, Any] = {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": list(verbs),
            }
            if (prefix, short) != (resource.group, resource.version):
                entry |= {"group": prefix, "version": short}
            listed.append(entry)
    if not found:
        return None
    api = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": listed}


def _classic(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def aggregated(registry: Registry, *, core: bool) -> dict[str, Any]:
    """GET /api or /apis with the aggregated media type."""
    items = []
    for name, versions in registry.groups().items():
        if (name == "") is not core:
            continue
        items.append(
            {
                "metadata": {"name": name, "creationTimestamp": None}
                if name
                else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_aggregated(one) for one in registry.of(name, version)],
                    }
                    for version in versions
                ],
            }
        )
    return {
        "kind": AGGREGATED,
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": resource.gvk(),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    extra = _extra(resource)
    if extra:
        entry["subresources"] = [
            {"subresource": name, "responseKind": _gvk(api_version, kind), "verbs": list(verbs)}
            for name, api_version, kind, verbs in extra
        ]
    return entry


def _gvk(api_version: str, kind: str) -> dict[str, str]:
    prefix, _, version = api_version.rpartition("/")
    return {"group": prefix, "version": version, "kind": kind}
