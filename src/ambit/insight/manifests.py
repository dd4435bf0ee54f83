"""API objects as people keep them in files, or as a cluster lists them, compiled as the control plane would. Pure.

1. Lists are opened; an object without namespace is in the one that is given, as for `kubectl apply`.
2. Of two objects of one name the later counts.
3. A kind that decides nothing about connections is left out and named; one that the group of policies does not have is
   a mistake, so that a misspelt policy is not taken for protection.
4. A policy's field that does not exist is a finding: an API server would not have let it in.
5. Of what is for writing only counts what an API server makes of it (`ambit.objects.written`).
6. What the API server would refuse to decode is a mistake of whoever wrote it (`BadInput`); what it would take and
   nodes cannot enforce is a finding.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ambit.core.errors import BadInput
from ambit.core.finding import Finding, Level
from ambit.ingest.istio.fields import KNOWN, unknown_fields
from ambit.ingest.istio.peer import PeerPolicy, peer_policy
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.insight.without_effect import GROUPS, findings_of, unread_kind
from ambit.model.jwt import TokenPolicy
from ambit.model.policy import Authorization
from ambit.model.proxy import ListenerRoutes, Proxy, ServiceRoutes
from ambit.model.request_policy import RequestPolicy
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.model.workload import Workload
from ambit.objects.decoding import PROJECTIONS
from ambit.objects.written import kept

Given = tuple[str, Any]
"""Where an object is from, for messages, and the object itself."""

_POLICY_GROUP = "security.istio.io"
_POLICY_KINDS = frozenset({"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"})
_PEERS = "peerauthentications.security.istio.io"
_NAMED = 3
"""So many objects of a kind that is left out are named; the others are counted."""
_RESOURCES = {(each.group, each.kind): resource for resource, each in PROJECTIONS.items()}


class Compiled(msgspec.Struct, frozen=True):
    """What nodes and L7 proxies are told, each part by name; `notes` are sentences about what was left out."""

    authorizations: tuple[Authorization, ...]
    services: tuple[Service, ...]
    workloads: tuple[Workload, ...]
    proxies: tuple[Proxy, ...]
    routes: tuple[ServiceRoutes | ListenerRoutes, ...]
    tokens: tuple[TokenPolicy, ...]
    request_policies: tuple[RequestPolicy, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    settings: MeshSettings
    peers: tuple[PeerPolicy, ...] = ()
    labels: dict[str, dict[str, str]] = {}
    """Of pods, by `<namespace>/<name>`."""
    closed: dict[str, str] = {}
    """Why services with an inline waypoint are, by their keys."""

    def view(self) -> Snapshot:
        """For questions about it."""
        return Snapshot(self.workloads, self.services, self.authorizations)


def compile_objects(objects: Iterable[Given], settings: MeshSettings, namespace: str = "default") -> Compiled:
    """The mesh model of these objects. Raises BadInput for what is no API object."""
    changes: dict[tuple[str, str], Change] = {}
    ignored: dict[str, list[str]] = defaultdict(list)
    written: list[dict[str, Any]] = []
    unread: list[Finding] = []
    misspelt: dict[tuple[str, str], tuple[Finding, ...]] = {}
    notes: list[str] = []
    for where, value in _opened(objects):
        kind, group = _kind_of(where, value)
        value = _placed(value, kind, group, namespace)
        written.append(value)
        resource = _RESOURCES.get((group, kind))
        if resource is None or not PROJECTIONS[resource].chooses(value):
            name = _full_name(value)
            if resource is None and group in GROUPS:
                unread.append(unread_kind(kind, name))
            else:
                ignored[kind].append(name)
            continue
        change = _change(where, value, resource, kind)
        if (resource, change.key) in changes:
            notes.append(f"{kind} {change.key} is given more than once; the last one counts")
        changes[resource, change.key] = change
        misspelt[resource, change.key] = _misspelt(kind, value, change)
    if ignored:
        several = "; ".join(f"{kind} {_first_of(names)}" for kind, names in sorted(ignored.items()))
        notes.append(f"left out, because they decide nothing about connections: {several}")
    compiler = MeshCompiler(settings)
    compiler.apply(changes.values())
    homeless = [change.key for change in changes.values() if _is_pod_without_address(change)]
    if homeless:
        notes.append(f"pods without an address are not in the mesh yet: {', '.join(sorted(homeless))}")
    return Compiled(
        authorizations=_sorted(compiler.authorizations),
        services=_sorted(compiler.services),
        workloads=_sorted(compiler.workloads),
        proxies=_sorted(compiler.proxies),
        routes=(*_sorted(compiler.routes), *_sorted(compiler.listener_routes)),
        tokens=_sorted(compiler.tokens),
        request_policies=_sorted(compiler.request_policies),
        findings=(
            *(each for found in misspelt.values() for each in found),
            *unread,
            *findings_of(written, settings.root_namespace),
            *compiler.findings,
        ),
        notes=tuple(notes),
        settings=settings,
        peers=tuple(
            peer_policy(each.value, settings) for each in changes.values() if each.resource == _PEERS
        ),
        labels={each.key: each.value.metadata.labels for each in changes.values() if each.resource == "pods"},
        closed=dict(compiler.closed),
    )


def _opened(objects: Iterable[Given]) -> Iterator[Given]:
    for where, value in objects:
        if isinstance(value, dict) and isinstance(value.get("items"), list):
            kind = str(value.get("kind", "")).removesuffix("List")
            implied = {"kind": kind, "apiVersion": value.get("apiVersion", "")} if kind else {}
            for index, item in enumerate(value["items"]):
                inside = {**implied, **item} if isinstance(item, dict) else item
                yield f"{where}, item {index + 1}", inside
        else:
            yield where, value


def _kind_of(where: str, value: Any) -> tuple[str, str]:
    if not isinstance(value, dict) or not value.get("kind") or not value.get("apiVersion"):
        raise BadInput(f"{where} is no object: apiVersion and kind are needed")
    kind = str(value["kind"])
    group, _, _ = str(value["apiVersion"]).rpartition("/")
    if group == _POLICY_GROUP and kind not in _POLICY_KINDS:
        raise BadInput(f"{where}: {group} has no kind {kind}; it has {', '.join(sorted(_POLICY_KINDS))}")
    return kind, group


def _placed(value: dict[str, Any], kind: str, group: str, namespace: str) -> dict[str, Any]:
    """The object with a namespace. Of kinds that are not read each is taken for one in a namespace."""
    resource, metadata = _RESOURCES.get((group, kind)), value.get("metadata")
    if resource is not None and not PROJECTIONS[resource].namespaced:
        return value
    if not isinstance(metadata, dict) or metadata.get("namespace"):
        return value
    return {**value, "metadata": {**metadata, "namespace": namespace}}


def _full_name(value: dict[str, Any]) -> str:
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}".lstrip("/")


def _first_of(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(sorted(names)[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _change(where: str, value: dict[str, Any], resource: str, kind: str) -> Change:
    try:
        stored = kept(kind, PROJECTIONS[resource].group, value)
        decoded = PROJECTIONS[resource].decode(msgspec.json.encode(stored))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise BadInput(f"{where} is no {kind}: {problem}") from problem
    if not decoded.metadata.name:
        raise BadInput(f"{where} is no {kind}: metadata.name is empty")
    return Change(resource, decoded.metadata.key, decoded)


def _misspelt(kind: str, value: dict[str, Any], change: Change) -> tuple[Finding, ...]:
    if kind not in KNOWN:
        return ()
    origin = change.value.metadata.reference(kind)
    return tuple(
        Finding(
            "AMB0003",
            Level.ERROR,
            origin,
            path,
            "there is no such field, it is left out" + (f"; did you mean {nearest}?" if nearest else ""),
        )
        for path, nearest in unknown_fields(kind, value)
    )


def _is_pod_without_address(change: Change) -> bool:
    return change.resource == "pods" and not change.value.addresses and not change.value.finished


def _sorted(values: Any) -> tuple[Any, ...]:
    return tuple(value for _, value in sorted(values.items()))
