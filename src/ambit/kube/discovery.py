"""Which resources a server knows: the classic discovery documents, as every server version answers them."""

import msgspec

from ambit.kube.client import Client
from ambit.kube.errors import ApiError
from ambit.kube.resource import Resource


class Discovered(msgspec.Struct, frozen=True):
    """A resource and what can be done with it."""

    resource: Resource
    verbs: frozenset[str]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class _Version(msgspec.Struct, rename="camel"):
    group_version: str
    version: str


class _Group(msgspec.Struct, rename="camel"):
    name: str
    versions: tuple[_Version, ...] = ()
    preferred_version: _Version | None = None


class _Groups(msgspec.Struct):
    groups: tuple[_Group, ...] = ()


class _Entry(msgspec.Struct, rename="camel"):
    name: str
    kind: str
    namespaced: bool = True
    verbs: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class _Entries(msgspec.Struct):
    resources: tuple[_Entry, ...] = ()


async def discover(client: Client) -> tuple[Discovered, ...]:
    """All resources, each once, without subresources: in its group's preferred version, or where that does not serve it
    in the first version that does (`EnvoyFilter` is served as v1alpha3 only, while its group prefers v1).

    A version whose document cannot be had (an aggregated API that is down) is left out.
    """
    found = await _version(client, "/api/v1", "", "v1")
    groups = msgspec.json.decode(await client.raw("GET", "/apis"), type=_Groups)
    for group in groups.groups:
        served: dict[str, Discovered] = {}
        for version in sorted(group.versions, key=lambda each: each != group.preferred_version):
            try:
                resources = await _version(
                    client, f"/apis/{version.group_version}", group.name, version.version
                )
            except ApiError:
                continue
            for each in resources:
                served.setdefault(each.resource.plural, each)
        found += served.values()
    return tuple(found)


async def _version(client: Client, path: str, group: str, version: str) -> list[Discovered]:
    document = msgspec.json.decode(await client.raw("GET", path), type=_Entries)
    return [
        Discovered(
            Resource(group, version, entry.name, entry.kind, entry.namespaced),
            frozenset(entry.verbs),
            entry.short_names,
            entry.categories,
        )
        for entry in document.resources
        if "/" not in entry.name
    ]
