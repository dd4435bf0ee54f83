"""List and watch: selectors, pages, resource versions, bookmarks, streaming lists."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import msgspec
import orjson

from ambit.local.apiserver.failures import ApiFailure, bad_request, expired, invalid, version_too_large
from ambit.local.apiserver.kinds.builtin import field_names
from ambit.local.apiserver.metadata import invalid_value
from ambit.local.apiserver.requests import flag, number
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.selectors import FieldTest, LabelTest, parse_fields, parse_labels
from ambit.local.apiserver.storage.store import Entry, Event, Store

BOOKMARK_SECONDS = 60.0
INITIAL_PIECE = 256
"""So many objects of a streaming list are written together."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Filter(msgspec.Struct, frozen=True):
    """Which objects a request is about."""

    namespace: str
    labels: LabelTest | None = None
    fields: FieldTest | None = None

    def matches(self, entry: Entry) -> bool:
        if self.namespace and entry.namespace != self.namespace:
            return False
        if self.labels is not None and not self.labels(entry.labels):
            return False
        if self.fields is None:
            return True
        own = {"metadata.name": entry.name, "metadata.namespace": entry.namespace}
        return self.fields({**entry.fields, **own})


def read_filter(resource: Resource, namespace: str, name: str, query: Mapping[str, str]) -> Filter:
    """From the path and the query. Raises ApiFailure 400."""
    known = {"metadata.name", "metadata.namespace", *field_names(resource.storage), *resource.selectable}
    fields = parse_fields(query.get("fieldSelector", ""), frozenset(known))
    if name:
        fields = FieldTest([*(fields.terms if fields else ()), ("metadata.name", True, name)])
    return Filter(
        namespace if resource.namespaced else "", parse_labels(query.get("labelSelector", "")), fields
    )


class Page(msgspec.Struct, frozen=True):
    """Part of a list."""

    entries: list[Entry]
    revision: int
    token: str = ""
    remaining: int | None = None


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    found = number(text)
    if found is None:
        raise bad_request(f"invalid {name}: {text!r}")
    return found


def _version(store: Store, query: Mapping[str, str]) -> int:
    """The given resourceVersion, 0 when there is none. Raises ApiFailure 400 or 504."""
    text = query.get("resourceVersion") or "0"
    found = number(text)
    if found is None:
        cause = invalid_value("resourceVersion", text, "strconv.ParseUint: invalid syntax")
        raise ApiFailure(400, "BadRequest", f"resourceVersion: {cause.message}")
    if found > store.revision:
        raise version_too_large(found, store.revision)
    return found


def list_page(store: Store, resource: Resource, wanted: Filter, query: Mapping[str, str]) -> Page:
    """Raises ApiFailure 400, 410 or 504."""
    revision, after = store.revision, ("", "")
    version = _version(store, query)
    token = query.get("continue")
    if token:
        revision, after = _read_token(token)
        store.check_since(resource.storage, revision)
    elif query.get("resourceVersionMatch") == "Exact" and version:
        if version != store.revision:
            raise expired(f"The resourceVersion for the provided list is too old: {version}")
        revision = version
    entries = [
        entry
        for entry in store.select(resource.storage, wanted.namespace)
        if (entry.namespace, entry.name) > after and wanted.matches(entry)
    ]
    limit = _number(query, "limit")
    if not limit or len(entries) <= limit:
        return Page(entries, revision)
    last = entries[limit - 1]
    text = orjson.dumps([revision, last.namespace, last.name])
    remaining = len(entries) - limit if wanted.labels is None and wanted.fields is None else None
    return Page(entries[:limit], revision, base64.urlsafe_b64encode(text).decode(), remaining)


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        revision, namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
        return int(revision), (str(namespace), str(name))
    except (ValueError, TypeError) as error:
        raise bad_request("continue key is not valid") from error


class Change(msgspec.Struct, frozen=True):
    """One line of a watch. `entry` is None for bookmarks; `moved` marks an old object that left the
    selection."""

    kind: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    entry: Entry | None
    revision: int
    initial_end: bool = False


def _seen(wanted: Filter, event: Event) -> Change | None:
    """The event as a watcher with this filter sees it: entering and leaving the selection are ADDED and
    DELETED."""
    revision = event.new.revision
    before = event.old is not None and wanted.matches(event.old)
    if event.kind == "DELETED":
        return Change("DELETED", event.new, revision) if before else None
    if wanted.matches(event.new):
        return Change("MODIFIED" if before else "ADDED", event.new, revision)
    if before and event.old is not None:
        return Change("DELETED", _restamp(event.old, revision), revision)
    return None


def _restamp(entry: Entry, revision: int) -> Entry:
    body = entry.decode()
    body["metadata"]["resourceVersion"] = str(revision)
    return msgspec.structs.replace(entry, revision=revision, data=orjson.dumps(body))


class WatchPlan(msgspec.Struct, frozen=True):
    """How a watch starts."""

    since: int
    initial: list[Entry] | None
    bookmarks: bool
    mark_initial_end: bool


def plan_watch(store: Store, resource: Resource, wanted: Filter, query: Mapping[str, str]) -> WatchPlan:
    """Raises ApiFailure 400, 410, 422 or 504."""
    version = _version(store, query)
    bookmarks = flag(query, "allowWatchBookmarks")
    streaming = flag(query, "sendInitialEvents")
    if streaming and query.get("resourceVersionMatch") != "NotOlderThan":
        rule = "Forbidden: resourceVersionMatch is required when sendInitialEvents is set"
        cause = invalid_value("resourceVersionMatch", query.get("resourceVersionMatch", ""), rule)
        raise invalid("ListOptions", "meta.k8s.io", "", [cause])
    if "sendInitialEvents" not in query and "resourceVersionMatch" in query:
        rule = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        cause = invalid_value("resourceVersionMatch", query["resourceVersionMatch"], rule)
        raise invalid("ListOptions", "meta.k8s.io", "", [cause])
    legacy = not version and query.get("sendInitialEvents", "true").lower() != "false"
    if streaming or legacy:
        entries = [one for one in store.select(resource.storage, wanted.namespace) if wanted.matches(one)]
        return WatchPlan(store.revision, entries, bookmarks, mark_initial_end=streaming and bookmarks)
    since = version or store.revision
    store.check_since(resource.storage, since)
    return WatchPlan(since, None, bookmarks, mark_initial_end=False)


async def watch(
    store: Store, resource: Resource, wanted: Filter, plan: WatchPlan, timeout: float, clock: Any
) -> AsyncIterator[list[Change]]:
    """Batches of changes until `timeout` seconds passed (`clock()` gives seconds) or the server stops."""
    watcher = store.watch(resource.storage, plan.since)
    try:
        first = [Change("ADDED", entry, entry.revision) for entry in plan.initial or ()]
        if plan.mark_initial_end:
            first.append(Change("BOOKMARK", None, plan.since, initial_end=True))
        for at in range(0, len(first), INITIAL_PIECE):
            yield first[at : at + INITIAL_PIECE]
        end = clock() + timeout
        marked = clock()
        while (left := end - clock()) > 0:
            events = await watcher.next(min(left, BOOKMARK_SECONDS))
            if events is None:
                return
            changes = [change for event in events if (change := _seen(wanted, event))]
            if not events and plan.bookmarks and clock() - marked >= min(left, BOOKMARK_SECONDS) * 0.9:
                changes.append(Change("BOOKMARK", None, store.revision))
                marked = clock()
            if changes:
                yield changes
    finally:
        store.unwatch(resource.storage, watcher)
