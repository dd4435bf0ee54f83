"""`docs/conformance.md`, written from the API definitions, the projections that read them, `tests/fields.toml` and the
compiler's table of features. `--update-golden` renews it.

A field that a projection has is handled. Every other field of a kind must be in `tests/fields.toml` with its reason.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from ambit.ingest.gateway.features import FEATURES, Feature
from ambit.objects import backend_policies, gateway, istio, networking, routes, stream_routes, telemetry
from ambit.objects.crds import read_bundle

ROOT = Path(__file__).parents[2]
STATES = {
    "refused": "said in a status or finding, and never passed over",
    "ignored": "changes nothing, for the reason that is given",
    "later": "not there yet",
}
ON_PURPOSE = {"refused", "ignored"}
"""States of fields that may be read nevertheless, with all below them."""
KINDS: dict[str, type[Any]] = {
    "GatewayClass": gateway.GatewayClass,
    "Gateway": gateway.Gateway,
    "ListenerSet": gateway.ListenerSet,
    "HTTPRoute": routes.HTTPRoute,
    "GRPCRoute": routes.GRPCRoute,
    "TLSRoute": stream_routes.TLSRoute,
    "TCPRoute": stream_routes.TCPRoute,
    "UDPRoute": stream_routes.UDPRoute,
    "BackendTLSPolicy": backend_policies.BackendTLSPolicy,
    "XBackendTrafficPolicy": backend_policies.XBackendTrafficPolicy,
    "ReferenceGrant": gateway.ReferenceGrant,
    "AuthorizationPolicy": istio.AuthorizationPolicy,
    "PeerAuthentication": istio.PeerAuthentication,
    "RequestAuthentication": istio.RequestAuthentication,
    "Telemetry": telemetry.Telemetry,
    "ServiceEntry": networking.ServiceEntry,
    "WorkloadEntry": networking.WorkloadEntry,
}
"""The projection of each kind that is read."""
HEAD = """\
# What of the APIs is there

Written from the definitions of the APIs, from what reads them, from `tests/fields.toml` and from
`ingest/gateway/features.py` (`pytest tests/docs --update-golden` renews it). A test walks the definitions: no field is
left out. How a kind behaves: [waypoints](waypoints.md), [policy](policy.md), [tokens](tokens.md), [dns](dns.md); what
is worse than elsewhere: [limits](limits.md).

## Features of the Gateway API

Of v1.6, by the names of its conformance suite. `Gateway`: at gateways; `mesh`: at waypoints, for a Service as parent.

"""
FIELDS = """\

## Fields

Of the experimental channel, where there are two. Everything below `metadata` is Kubernetes', and `status` is written.
`[]` stands for each item of a list. A field that is not there is not known to this version: API servers drop it.

"""


class Unlisted(msgspec.Struct, frozen=True):
    """A field that nothing reads, or that `fields.toml` lists without need."""

    kind: str
    path: str
    text: str


class Fields(msgspec.Struct, frozen=True):
    """Paths of one kind: those that a projection reads, and the others (without what is below them)."""

    read: tuple[str, ...]
    others: tuple[str, ...]


def fields_of(kind: str) -> Fields:
    """Below `spec`, or at the top of kinds that have none."""
    return _fields(_schema(kind), KINDS[kind])


def listed() -> dict[str, dict[str, dict[str, str]]]:
    """`fields.toml`: by kind and path, `state` and `why`."""
    found: dict[str, dict[str, dict[str, str]]] = tomllib.loads((ROOT / "tests/fields.toml").read_text())
    return found


def unlisted() -> Iterator[Unlisted]:
    """What does not fit."""
    said = listed()
    for kind in said.keys() - KINDS.keys():
        yield Unlisted(kind, "", "is no kind that is read")
    for kind in KINDS:
        found, given = fields_of(kind), said.get(kind, {})
        for path in found.others:
            if path not in given:
                yield Unlisted(kind, path, "is not read, and tests/fields.toml does not say why")
        for path, entry in given.items():
            is_read = any(_is_within(each, path) for each in found.read)
            if path not in found.others and not (is_read and entry["state"] in ON_PURPOSE):
                yield Unlisted(kind, path, "is read, or does not exist, and tests/fields.toml lists it")
            if entry["state"] not in STATES or not entry["why"]:
                yield Unlisted(kind, path, f"has no state of {', '.join(STATES)}, or no reason")


def render() -> str:
    """The whole page."""
    return "".join([HEAD, _features(), FIELDS, *(_kind(kind) for kind in KINDS)])


def _features() -> str:
    rows = ["| feature | | |", "| --- | --- | --- |"]
    rows += [f"| {each.name} | {_where(each)} | {each.note} |" for each in FEATURES]
    return "\n".join(rows) + "\n"


def _where(feature: Feature) -> str:
    return ", ".join(place.value for place in feature.places) or "not yet"


def _kind(kind: str) -> str:
    found, said = fields_of(kind), listed().get(kind, {})
    handled: dict[str, list[str]] = {}
    for path in found.read:
        if not any(_is_within(path, each) for each in said):
            parent, _, name = path.removesuffix(".*").rpartition(".")
            handled.setdefault(parent, []).append(f"{name}{path[len(f'{parent}.{name}') :]}")
    lines = "".join(f"- `{parent}`: {', '.join(names)}\n" for parent, names in handled.items())
    text = f"### {kind}\n\nHandled:\n\n{lines}\n"
    if said:
        rows = "".join(f"| `{path}` | {entry['state']} | {entry['why']} |\n" for path, entry in said.items())
        text += f"| not handled | | |\n| --- | --- | --- |\n{rows}\n"
    return text


def _is_within(path: str, above: str) -> bool:
    return path == above or path.startswith((f"{above}.", f"{above}["))


def _schema(kind: str) -> Mapping[str, Any]:
    for bundle in ("gateway-experimental", "istio"):
        for each in read_bundle(bundle):
            if each["kind"] == "CustomResourceDefinition" and each["spec"]["names"]["kind"] == kind:
                if each["spec"]["group"] == "networking.istio.io" and kind == "Gateway":
                    continue
                versions = [version for version in each["spec"]["versions"] if version["served"]]
                found: Mapping[str, Any] = versions[0]["schema"]["openAPIV3Schema"]
                return found
    raise KeyError(kind)


def _fields(schema: Mapping[str, Any], of: type[Any]) -> Fields:
    read: list[str] = []
    others: list[str] = []
    for path, is_read in _walk(schema, of, ""):
        (read if is_read else others).append(path)
    return Fields(tuple(dict.fromkeys(read)), tuple(dict.fromkeys(others)))


_COMMON = {"apiVersion", "kind", "metadata", "status"}


def _walk(schema: Mapping[str, Any], of: Any, path: str) -> Iterator[tuple[str, bool]]:
    """Leaves that are read; and what is not, without its parts."""
    names = {each.encode_name: each.type for each in msgspec.structs.fields(of)}
    for name, member in sorted(schema.get("properties", {}).items()):
        if not path and name in _COMMON:
            continue
        where = f"{path}.{name}" if path else name
        if name not in names:
            yield where, False
            continue
        inner, below = member, where
        while inner.get("type") == "array" or isinstance(inner.get("additionalProperties"), Mapping):
            if inner.get("type") == "array":
                inner, below = inner["items"], f"{below}[]"
            else:
                inner, below = inner["additionalProperties"], f"{below}.*"
        struct = _struct(names[name])
        if struct is None or "properties" not in inner:
            yield below, True
        else:
            yield from _walk(inner, struct, below)


def _struct(of: Any) -> type[Any] | None:
    """The Struct inside a type such as `tuple[T, ...]`, `T | None` or `dict[str, T]`."""
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        return of
    if get_origin(of) in (tuple, dict, Union, UnionType):
        return next((found for each in get_args(of) if (found := _struct(each)) is not None), None)
    return None
