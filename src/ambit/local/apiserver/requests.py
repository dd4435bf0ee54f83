"""Reads what a request means from its method, path and query (Kubernetes API conventions, "request info")."""

import re
from collections.abc import Mapping

import msgspec

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


class Target(msgspec.Struct, frozen=True):
    """A path below /api or /apis that names a resource. Empty strings mean "not given"."""

    verb: str
    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str
    rest: str
    """What follows the subresource, for `/proxy`."""


def parse_target(method: str, path: str, query: Mapping[str, str]) -> Target | None:
    """None when the path names no resource (discovery, health, OpenAPI)."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    if rest[0] == "watch" and len(rest) > 1:
        rest = rest[1:]
        query = {**query, "watch": "true"}
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    if not namespace and rest[0] == "namespaces":
        namespace = name
    subresource = rest[2] if len(rest) > 2 else ""
    return Target(
        _verb(method, query, bool(name)),
        group,
        version,
        namespace,
        rest[0],
        name,
        subresource,
        "/".join(rest[3:]),
    )


def _verb(method: str, query: Mapping[str, str], named: bool) -> str:
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and flag(query, "watch"):
        return "watch"
    if not named:
        return {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    return verb


def number(text: str) -> int | None:
    """A count written in ASCII digits, of a sane length; None for anything else."""
    return int(text) if len(text) <= 18 and re.fullmatch("[0-9]+", text) else None


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean query parameter: present and not false."""
    return query.get(name, "false").lower() in {"", "1", "true"}
