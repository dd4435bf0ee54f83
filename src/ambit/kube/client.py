"""The Kubernetes API as async methods over one server connection pool.

Objects are plain dictionaries here; typed projections are made by `ambit.kube.informer`, straight from bytes.
Errors are those of `ambit.kube.errors`; a server that cannot be reached raises `Unreachable`.
"""

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urlencode

import msgspec

from ambit.core.errors import Unreachable
from ambit.kube import resource as kinds
from ambit.kube.credentials import Credentials, Fixed
from ambit.kube.errors import error_of
from ambit.kube.http import Address, Connection, Response, Transport
from ambit.kube.kubeconfig import load_in_cluster, load_kubeconfig
from ambit.kube.resource import Resource

Object: TypeAlias = dict[str, Any]
Objects: TypeAlias = list[Object]
Propagation = Literal["Background", "Foreground", "Orphan"]

PAGE = 500
"""Objects per page of a list; more at once would make a big cluster's answer huge."""

READ_TIMEOUT = 120.0
"""Seconds that the body of an answer may take, watches and other streams aside."""
RETRIES = 5
"""How often a request is sent again that the server turned away with a Retry-After header (429, 503)."""
RETRY_AFTER_MAX = 10.0


class Patch(enum.Enum):
    """Patch types, by their content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch; `object` is the undecoded JSON of the object or, for ERROR, of a Status."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


_events = msgspec.json.Decoder(WatchEvent)


class Client:
    """A connection pool to one API server and the verbs on its resources. Use as an async context manager."""

    def __init__(self, transport: Transport, credentials: Credentials, namespace: str = "default") -> None:
        self.namespace = namespace
        """The namespace of the chosen context or of the pod; methods never use it by themselves."""
        self._transport = transport
        self._credentials = credentials

    @classmethod
    def from_kubeconfig(cls, path: Path | str, context: str | None = None) -> Self:
        """The server and user of a kubeconfig's context. Raises `BadInput`."""
        return cls(*load_kubeconfig(path, context))

    @classmethod
    def in_cluster(cls) -> Self:
        """The server and service account of the pod that runs this. Raises `EnvironmentProblem`."""
        return cls(*load_in_cluster())

    @classmethod
    def over_unix(cls, path: Path | str) -> Self:
        """A server that trusts whoever can open its Unix socket."""
        return cls(Transport(Address(unix_path=str(path))), Fixed())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections; requests under way end by themselves."""
        self._transport.close()

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        """One object. Raises `NotFound`."""
        return await self._object("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Objects:
        """All objects, of all namespaces if none is given, each with its apiVersion and kind."""
        items: Objects = []
        token = ""
        while True:
            query = {
                "labelSelector": label_selector,
                "fieldSelector": field_selector,
                "limit": PAGE,
                "continue": token or None,
            }
            page = await self._object("GET", resource.path(namespace), query)
            for item in page.get("items") or ():
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                items.append(item)
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return items

    async def create(
        self, resource: Resource, value: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        """Create an object, or post to the subresource of the object that `value` names.

        The namespace defaults to the object's own. Raises `AlreadyExists`, `Invalid`.
        """
        metadata = value.get("metadata") or {}
        path = resource.path(
            namespace or metadata.get("namespace"), metadata["name"] if subresource else None, subresource
        )
        return await self._object("POST", path, body=_typed(resource, value) if not subresource else value)

    async def replace(
        self, resource: Resource, value: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        """Write the whole object. Raises `Conflict` if it changed since it was read (its resourceVersion)."""
        metadata = value["metadata"]
        path = resource.path(namespace or metadata.get("namespace"), metadata["name"], subresource)
        return await self._object("PUT", path, body=_typed(resource, value))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: Patch = Patch.MERGE,
        subresource: str = "",
        field_manager: str | None = None,
    ) -> Object:
        """Change an object in place; `patch` is a merge document, for `Patch.JSON` a list of operations."""
        path = resource.path(namespace, name, subresource)
        return await self._object(
            "PATCH", path, {"fieldManager": field_manager}, body=patch, content_type=kind.value
        )

    async def apply(
        self,
        resource: Resource,
        value: Object,
        namespace: str | None = None,
        *,
        field_manager: str,
        force: bool = False,
        subresource: str = "",
    ) -> Object:
        """Server-side apply: own exactly the fields in `value`. Raises `Conflict` unless forced."""
        metadata = value["metadata"]
        path = resource.path(namespace or metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": field_manager, "force": "true" if force else None}
        return await self._object(
            "PATCH", path, query, body=_typed(resource, value), content_type=Patch.APPLY.value
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_period: int | None = None,
        uid: str | None = None,
    ) -> Object:
        """Delete one object, with a precondition on its uid if given. Raises `NotFound`, `Conflict`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return await self._object("DELETE", resource.path(namespace, name), body=options)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int | None = None,
        initial_events: bool = False,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Changes after `resource_version`, bookmarks included, until the server ends the watch.

        With `initial_events` it first sends all objects, then a marked bookmark (streaming list).
        Raises `Gone` when the version is too old. A line that is no event raises `msgspec.DecodeError`.
        """
        query: dict[str, Any] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": timeout_seconds,
        }
        if initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        async with await self.stream("GET", resource.path(namespace), query) as response:
            yield _decode_events(response.lines())

    async def token_request(
        self,
        namespace: str,
        account: str,
        audiences: tuple[str, ...] = (),
        *,
        seconds: int = 3600,
        bound_pod: tuple[str, str] | None = None,
    ) -> Object:
        """The `status` of a new service-account token: `token` and `expirationTimestamp`.

        `bound_pod` is (name, uid) of the pod whose end also ends the token.
        """
        spec: Object = {"audiences": list(audiences), "expirationSeconds": seconds}
        if bound_pod is not None:
            name, uid = bound_pod
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = kinds.SERVICE_ACCOUNTS.path(namespace, account, "token")
        answer = await self._object("POST", path, body=body)
        return dict(answer["status"])

    async def raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Any request; its body in full. Raises the error that a refusal stands for."""
        async with await self.stream(method, path, query, body, headers) as response:
            return await _read(response, f"{method} {path}")

    async def stream(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Any request; the answer's body is left to the caller to read or close."""
        filled = {key: str(value) for key, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(filled)}" if filled else path
        refreshed = False
        patience = RETRIES
        while True:
            sent = {"Accept": "application/json", "User-Agent": "ambit"} | dict(headers or {})
            authorization = await self._credentials.header()
            if authorization is not None:
                sent["Authorization"] = authorization
            response = await self._transport.request(method, target, sent, body)
            wait = _asked_to_wait(response) if patience else None
            if wait is not None:
                patience -= 1
                response.close()
                await asyncio.sleep(wait)
                continue
            if response.status == 401 and not refreshed:
                refreshed = True
                self._credentials.forget()
                if await self._credentials.header() != authorization:
                    response.close()
                    continue
            break
        if response.status >= 400:
            async with response:
                raise error_of(response.status, await _read(response, f"{method} {path}"))
        return response

    async def upgrade(self, path: str, headers: Mapping[str, str]) -> tuple[Response, Connection]:
        """Change the protocol of a fresh connection; the caller owns and closes it.

        Raises the error that a refusal stands for.
        """
        # Real API servers refuse to upgrade for somebody who accepts JSON only.
        response = await self.stream("GET", path, headers={"Accept": "*/*", **headers})
        if response.status != 101:
            async with response:
                raise error_of(response.status, await response.read())
        return response, response.connection

    async def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        if body is None:
            answer = await self.raw(method, path, query)
        else:
            headers = {"Content-Type": content_type}
            answer = await self.raw(method, path, query, msgspec.json.encode(body), headers)
        try:
            decoded: Object = msgspec.json.decode(answer or b"{}", type=dict)
        except msgspec.DecodeError as error:
            raise Unreachable(f"the answer to {method} {path} is no JSON object: {error}") from error
        return decoded


def _asked_to_wait(response: Response) -> float | None:
    """Seconds to wait before the same request again, when the server turned it away unread."""
    text = response.headers.get("retry-after", "")
    if response.status not in (429, 503) or not text.isdigit():
        return None
    return min(float(text), RETRY_AFTER_MAX)


async def _read(response: Response, what: str) -> bytes:
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            return await response.read()
    except TimeoutError as error:
        raise Unreachable(f"the answer to {what} did not end in time") from error


def _typed(resource: Resource, value: Object) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **value}


async def _decode_events(lines: AsyncIterator[bytes]) -> AsyncIterator[WatchEvent]:
    async for line in lines:
        yield _events.decode(line)
