"""Objects, lists and watches in the form the client asked for: plain, Table, or metadata only."""

import time
from typing import Any

import orjson
from aiohttp import web

from ambit.local.apiserver import reads
from ambit.local.apiserver.negotiation import Wanted
from ambit.local.apiserver.reads import Change, Filter, Page, WatchPlan
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage import versions
from ambit.local.apiserver.storage.store import Json, Store
from ambit.local.apiserver.tables.table import Tables

_META = "meta.k8s.io/v1"


def partial(body: Json) -> Json:
    """A PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": body["metadata"]}


class Answers:
    """Renders responses. Plain objects and lists are sent as stored bytes, undecoded."""

    def __init__(self, store: Store, tables: Tables) -> None:
        self._store = store
        self._tables = tables

    def one(
        self, resource: Resource, wanted: Wanted, body: Json, *, status: int = 200, query: Any = None
    ) -> web.Response:
        """One object."""
        if wanted.form == "Table":
            revision = body["metadata"].get("resourceVersion", "")
            table = self._tables.table(resource, [body], (query or {}).get("includeObject", "Metadata"))
            return _json({**table, "metadata": {"resourceVersion": revision}}, status)
        if wanted.form == "PartialObjectMetadata":
            return _json(partial(body), status)
        return _json(body, status)

    def page(self, resource: Resource, wanted: Wanted, page: Page, query: Any) -> web.Response:
        """A list."""
        metadata: Json = {"resourceVersion": str(page.revision)}
        if page.token:
            metadata["continue"] = page.token
            if page.remaining is not None:
                metadata["remainingItemCount"] = page.remaining
        if wanted.form == "Table":
            bodies = [versions.served(resource, entry.decode()) for entry in page.entries]
            table = self._tables.table(resource, bodies, query.get("includeObject", "Metadata"))
            return _json({**table, "metadata": metadata})
        if wanted.form in {"PartialObjectMetadataList", "PartialObjectMetadata"}:
            items = [partial(entry.decode()) for entry in page.entries]
            kind = "PartialObjectMetadataList"
            return _json({"kind": kind, "apiVersion": _META, "metadata": metadata, "items": items})
        head = orjson.dumps(
            {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": metadata}
        )
        items_bytes = b",".join(versions.served_bytes(resource, entry.data) for entry in page.entries)
        return _bytes(head[:-1] + b',"items":[' + items_bytes + b"]}")

    async def watch(
        self,
        request: web.Request,
        resource: Resource,
        wanted: Wanted,
        chosen: Filter,
        plan: WatchPlan,
        timeout: float,
    ) -> web.StreamResponse:
        """A stream of JSON lines until the timeout, the client's end or the server's."""
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache"}
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        include = request.query.get("includeObject", "Metadata")
        headed = False
        async for changes in reads.watch(self._store, resource, chosen, plan, timeout, time.monotonic):
            lines = []
            for change in changes:
                lines.append(self._line(resource, wanted, change, include, headed=headed))
                headed = True
            await response.write(b"".join(lines))
        await response.write_eof()
        return response

    def _line(
        self, resource: Resource, wanted: Wanted, change: Change, include: str, *, headed: bool
    ) -> bytes:
        if change.entry is None:
            return _event("BOOKMARK", self._bookmark(resource, wanted, change))
        if wanted.form == "Table":
            body = versions.served(resource, change.entry.decode())
            table = self._tables.table(resource, [body], include)
            table["metadata"] = {"resourceVersion": body["metadata"]["resourceVersion"]}
            if headed:
                table["columnDefinitions"] = None
            return _event(change.kind, table)
        if wanted.form.startswith("PartialObjectMetadata"):
            return _event(change.kind, partial(change.entry.decode()))
        data = versions.served_bytes(resource, change.entry.data)
        return b'{"type":"%s","object":%s}\n' % (change.kind.encode(), data)

    def _bookmark(self, resource: Resource, wanted: Wanted, change: Change) -> Json:
        metadata: Json = {"resourceVersion": str(change.revision), "creationTimestamp": None}
        if change.initial_end:
            metadata["annotations"] = {reads.INITIAL_EVENTS_END: "true"}
        if wanted.form == "Table":
            row = {"cells": [], "object": partial({"metadata": metadata})}
            return {
                "kind": "Table",
                "apiVersion": _META,
                "metadata": {"resourceVersion": str(change.revision)},
                "columnDefinitions": None,
                "rows": [row],
            }
        if wanted.form.startswith("PartialObjectMetadata"):
            return partial({"metadata": metadata})
        return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}


def _event(kind: str, body: Json) -> bytes:
    return orjson.dumps({"type": kind, "object": body}) + b"\n"


def _json(body: Any, status: int = 200) -> web.Response:
    return _bytes(orjson.dumps(body), status)


def _bytes(data: bytes, status: int = 200) -> web.Response:
    return web.Response(body=data, status=status, content_type="application/json")
