"""Requests about objects: verbs, subresources, and which module answers them."""

import random
from collections.abc import Iterable

import msgspec
import orjson
from aiohttp import web

from ambit.local.apiserver import deletion, negotiation, reads
from ambit.local.apiserver.access.escalation import GROUP as RBAC_GROUP
from ambit.local.apiserver.access.escalation import Escalation
from ambit.local.apiserver.access.reviews import Reviews
from ambit.local.apiserver.access.tokens import User
from ambit.local.apiserver.answers import Answers
from ambit.local.apiserver.failures import (
    bad_request,
    method_not_allowed,
    no_such_path,
)
from ambit.local.apiserver.patches import APPLY_PATCH, Patches
from ambit.local.apiserver.pods.requests import PodRequests
from ambit.local.apiserver.requests import Target, number
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.scale import Scales
from ambit.local.apiserver.shapes import FieldValidation
from ambit.local.apiserver.storage import versions
from ambit.local.apiserver.writes import WriteOptions, Writer, Written

_WATCH_SECONDS = (1800.0, 3600.0)
_STATUS_LIKE = {"status", "resize", "ephemeralcontainers"}


def write_options(request: web.Request) -> WriteOptions:
    """From the query. Raises ApiFailure 400."""
    query = request.query
    dry = query.getall("dryRun", [])
    if any(one != "All" for one in dry):
        raise bad_request(f"Invalid value: {dry}: supported values: All")
    try:
        validation = msgspec.convert(query.get("fieldValidation") or "Warn", FieldValidation)
    except msgspec.ValidationError as error:
        raise bad_request(f"fieldValidation: Unsupported value: {query['fieldValidation']!r}") from error
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    return WriteOptions(
        dry_run=bool(dry),
        field_manager=query.get("fieldManager") or agent or "unknown",
        named_manager=bool(query.get("fieldManager")),
        force=query.get("force", "false").lower() == "true",
        field_validation=validation,
    )


class ResourceRequests:
    """Serves everything below a resource's path."""

    def __init__(
        self,
        writer: Writer,
        answers: Answers,
        reviews: Reviews,
        pods: PodRequests,
        escalation: Escalation,
    ) -> None:
        self._writer = writer
        self._store = writer.store
        self._answers = answers
        self._reviews = reviews
        self._pods = pods
        self._escalation = escalation
        self._patches = Patches(writer)
        self._scales = Scales(writer)

    async def serve(
        self, request: web.Request, target: Target, resource: Resource, user: User
    ) -> web.StreamResponse:
        """Raises ApiFailure."""
        if target.subresource:
            return await self._subresource(request, target, resource, user)
        if target.verb not in resource.verbs:
            raise method_not_allowed(request.method)
        match target.verb:
            case "get":
                return self._get(request, target, resource)
            case "list":
                return self._list(request, target, resource)
            case "watch":
                return await self._watch(request, target, resource)
            case "create":
                return await self._create(request, target, resource, user)
            case "update":
                return await self._update(request, target, resource, user)
            case "patch":
                return await self._patch(request, target, resource, user)
            case "delete":
                return await self._delete(request, target, resource)
            case "deletecollection":
                return await self._delete_many(request, target, resource)
            case _:
                raise method_not_allowed(request.method)

    def _get(self, request: web.Request, target: Target, resource: Resource) -> web.Response:
        wanted = negotiation.wanted(request.headers.get("Accept", ""))
        entry = self._writer.existing(resource, target.namespace, target.name)
        if not wanted.form:
            data = versions.served_bytes(resource, entry.data)
            return web.Response(body=data, content_type=negotiation.JSON)
        return self._answers.one(
            resource, wanted, versions.served(resource, entry.decode()), query=request.query
        )

    def _list(self, request: web.Request, target: Target, resource: Resource) -> web.Response:
        wanted = negotiation.wanted(request.headers.get("Accept", ""))
        chosen = reads.read_filter(resource, target.namespace, "", request.query)
        page = reads.list_page(self._store, resource, chosen, request.query)
        return self._answers.page(resource, wanted, page, request.query)

    async def _watch(self, request: web.Request, target: Target, resource: Resource) -> web.StreamResponse:
        wanted = negotiation.wanted(request.headers.get("Accept", ""))
        chosen = reads.read_filter(resource, target.namespace, target.name, request.query)
        plan = reads.plan_watch(self._store, resource, chosen, request.query)
        seconds = number(request.query.get("timeoutSeconds") or "")
        timeout = float(seconds or random.uniform(*_WATCH_SECONDS))  # noqa: S311 - spreads reconnects
        return await self._answers.watch(request, resource, wanted, chosen, plan, timeout)

    async def _body(self, request: web.Request) -> negotiation.Body:
        data = await request.read()
        if not data:
            raise bad_request("the body of the request must not be empty")
        return negotiation.read_body(request.headers.get("Content-Type", ""), data)

    def _written(
        self, request: web.Request, resource: Resource, written: Written, told: Iterable[str] = ()
    ) -> web.Response:
        """`told` are warnings besides those of the write."""
        wanted = negotiation.wanted(request.headers.get("Accept", ""))
        code = 201 if written.created else 200
        response = self._answers.one(resource, wanted, written.body, status=code, query=request.query)
        warnings = [*told, *written.warnings]
        if resource.deprecation:
            warnings.append(resource.deprecation)
        for text in warnings:
            response.headers.add("Warning", "299 - " + orjson.dumps(text).decode())
        return response

    async def _create(
        self, request: web.Request, target: Target, resource: Resource, user: User
    ) -> web.Response:
        sent = await self._body(request)
        body = sent.value
        if not isinstance(body, dict):
            raise bad_request("the body of the request must be an object")
        answer = self._reviews.answer(resource.plural, body, user)
        if answer is not None:
            return web.json_response(body=orjson.dumps(answer), status=201)
        if resource.storage == "bindings":
            return self._pods.bind(target.namespace, (body.get("metadata") or {}).get("name", ""), body)
        namespace = target.namespace
        if resource.namespaced and not namespace:
            raise method_not_allowed(request.method)
        self._escalation.check(resource, namespace, body, user)
        options = write_options(request)
        told = sent.judge(options.field_validation)
        return self._written(request, resource, self._writer.create(resource, namespace, body, options), told)

    async def _update(
        self, request: web.Request, target: Target, resource: Resource, user: User, subresource: str = ""
    ) -> web.Response:
        sent = await self._body(request)
        body = sent.value
        options = write_options(request)
        told = sent.judge(options.field_validation)
        if isinstance(body, dict):
            name = (body.get("metadata") or {}).get("name")
            if name and name != target.name:
                raise bad_request(
                    f"the name of the object ({name}) does not match the name on the URL ({target.name})"
                )
            self._escalation.check(resource, target.namespace, body, user)
        entry = self._writer.existing(resource, target.namespace, target.name)
        written = self._writer.update(resource, entry, body, options, subresource)
        return self._written(request, resource, written, told)

    async def _patch(
        self, request: web.Request, target: Target, resource: Resource, user: User, subresource: str = ""
    ) -> web.Response:
        data = await request.read()
        options = write_options(request)
        media = request.headers.get("Content-Type", "").partition(";")[0].strip()
        if media == APPLY_PATCH and not subresource and not self._exists(resource, target):
            self._escalation.check_create(resource, target.namespace, target.name, user)
        if resource.group == RBAC_GROUP:
            trial = msgspec.structs.replace(options, dry_run=True)
            outcome = self._patches.patch(resource, target, media, data, trial, subresource)
            self._escalation.check(resource, target.namespace, outcome.body, user)
        written = self._patches.patch(resource, target, media, data, options, subresource)
        return self._written(request, resource, written)

    def _exists(self, resource: Resource, target: Target) -> bool:
        namespace = target.namespace if resource.namespaced else ""
        return self._store.get(resource.storage, namespace, target.name) is not None

    async def _delete_options(self, request: web.Request) -> deletion.DeleteOptions:
        data = await request.read()
        body = negotiation.decode(request.headers.get("Content-Type", ""), data) if data else None
        return deletion.read_options(body, dict(request.query))

    async def _delete(self, request: web.Request, target: Target, resource: Resource) -> web.Response:
        options = await self._delete_options(request)
        entry = self._writer.existing(resource, target.namespace, target.name)
        body, gone = self._writer.delete(resource, entry, options)
        if not gone or resource.storage == "pods":
            wanted = negotiation.wanted(request.headers.get("Accept", ""))
            return self._answers.one(resource, wanted, versions.served(resource, body), query=request.query)
        details = {"name": entry.name, "kind": resource.plural, "uid": entry.uid}
        if resource.group:
            details["group"] = resource.group
        return web.json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    async def _delete_many(self, request: web.Request, target: Target, resource: Resource) -> web.Response:
        options = await self._delete_options(request)
        chosen = reads.read_filter(resource, target.namespace, "", request.query)
        page = reads.list_page(self._store, resource, chosen, request.query)
        for entry in page.entries:
            self._writer.delete(resource, entry, options)
        wanted = negotiation.wanted(request.headers.get("Accept", ""))
        return self._answers.page(resource, wanted, page, request.query)

    async def _subresource(
        self, request: web.Request, target: Target, resource: Resource, user: User
    ) -> web.StreamResponse:
        name = target.subresource
        if name == "status" and resource.has_status:
            return await self._part(request, target, resource, user, "status")
        if name == "scale" and resource.scale:
            body = (await self._body(request)).value if request.method in {"PUT", "PATCH"} else None
            media = request.headers.get("Content-Type", "").partition(";")[0].strip()
            scale = self._scales.answer(resource, target, request.method, media, body, write_options(request))
            return web.json_response(body=orjson.dumps(scale))
        if name not in resource.subresources:
            raise no_such_path()
        if name == "token":
            body = (await self._body(request)).value
            if not isinstance(body, dict):
                raise bad_request("the body of the request must be an object")
            answer = self._reviews.request_token(target.namespace, target.name, body)
            return web.json_response(body=orjson.dumps(answer), status=201)
        if name == "finalize":
            body = (await self._body(request)).value
            entry = self._writer.existing(resource, "", target.name)
            written = self._writer.finalize_namespace(entry, body, write_options(request))
            return self._written(request, resource, written)
        if name in _STATUS_LIKE:
            return await self._part(request, target, resource, user, "")
        return await self._pods.serve(request, target)

    async def _part(
        self, request: web.Request, target: Target, resource: Resource, user: User, subresource: str
    ) -> web.Response:
        match request.method:
            case "GET":
                return self._get(request, target, resource)
            case "PUT":
                return await self._update(request, target, resource, user, subresource)
            case "PATCH":
                return await self._patch(request, target, resource, user, subresource)
            case method:
                raise method_not_allowed(method)
