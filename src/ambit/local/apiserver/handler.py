"""One HTTP request: who asks, may they, what do they want; failures become Status objects."""

import hashlib
import logging
from typing import Any

import orjson
from aiohttp import web

from ambit.local.apiserver import negotiation
from ambit.local.apiserver.access.impersonation import impersonate
from ambit.local.apiserver.access.rbac import Action, Authorizer
from ambit.local.apiserver.access.tokens import ISSUER, TokenRefused, Tokens, User
from ambit.local.apiserver.failures import (
    ApiFailure,
    forbidden,
    method_not_allowed,
    no_such_path,
    unauthorized,
)
from ambit.local.apiserver.kinds import discovery
from ambit.local.apiserver.kinds.openapi import OpenApi
from ambit.local.apiserver.requests import Target, parse_target
from ambit.local.apiserver.resource_requests import ResourceRequests
from ambit.local.apiserver.resources import Registry
from ambit.local.apiserver.selectors import exact_name

log = logging.getLogger(__name__)

_OPEN = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_GROUPED = ("system:authenticated",)
TRUSTED = web.AppKey("trusted", bool)


class Handler:
    """Serves every path. `trusted` connections (the Unix socket) are `system:masters`."""

    def __init__(
        self,
        registry: Registry,
        tokens: Tokens,
        authorizer: Authorizer,
        resources: ResourceRequests,
        openapi: OpenApi,
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._authorizer = authorizer
        self._resources = resources
        self._openapi = openapi

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._serve(request)
        except ApiFailure as failure:
            headers = {"Retry-After": "1"} if failure.code in {429, 504} else None
            return web.json_response(
                body=orjson.dumps(failure.status()), status=failure.code, headers=headers
            )
        except (ConnectionResetError, web.HTTPException):
            raise
        except Exception as error:
            log.exception("request failed: %s %s", request.method, request.path)
            broken = ApiFailure(500, "InternalError", f"Internal error occurred: {error!r}")
            return web.json_response(body=orjson.dumps(broken.status()), status=500)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in _OPEN or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return self._open(path)
        groups = request.headers.getall("Impersonate-Group", [])
        user = impersonate(self.authenticate(request), request.headers, groups, self._authorizer)
        target = parse_target(request.method, path, request.query)
        if target is None:
            self._authorize(user, Action(request.method.lower(), path=path))
            return self._document(request)
        resource = self._registry.find(target.group, target.version, target.plural)
        self._authorize_target(user, target, request.query.get("fieldSelector", ""))
        if resource is None:
            raise no_such_path()
        if not resource.namespaced and target.namespace and target.plural != "namespaces":
            raise no_such_path()
        return await self._resources.serve(request, target, resource, user)

    def _open(self, path: str) -> web.Response:
        if path == "/version":
            return web.json_response(discovery.VERSION)
        return web.Response(text="ok")

    def authenticate(self, request: web.Request) -> User:
        """From the Unix socket, a client certificate or a bearer token. Raises ApiFailure 401."""
        transport = request.transport
        if request.app[TRUSTED]:
            return User("system:admin", ("system:masters", *_GROUPED))
        header = request.headers.get("Authorization", "")
        if header.lower().startswith("bearer "):
            try:
                return self._tokens.judge(header[7:].strip(), [ISSUER])[0]
            except TokenRefused as error:
                raise unauthorized() from error
        certificate = transport.get_extra_info("peercert") if transport else None
        if certificate:
            parts = [pair for group in certificate.get("subject", ()) for pair in group]
            names = [value for key, value in parts if key == "commonName"]
            groups = [value for key, value in parts if key == "organizationName"]
            if names:
                return User(names[0], (*groups, *_GROUPED))
        raise unauthorized()

    def _authorize(self, user: User, action: Action) -> None:
        if self._authorizer.decide(user, action).allowed:
            return
        message = f'User "{user.name}" cannot {action.verb} path "{action.path}"'
        raise ApiFailure(403, "Forbidden", f"forbidden: {message}")

    def _authorize_target(self, user: User, target: Target, fields: str) -> None:
        """A collection that a field selector narrows to one name may be allowed by that name, as upstream."""
        name = target.name or exact_name(fields)
        action = Action(target.verb, target.group, target.plural, target.subresource, target.namespace, name)
        if self._authorizer.decide(user, action).allowed:
            return
        what = f"{target.plural}/{target.subresource}" if target.subresource else target.plural
        where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
        why = (
            f'User "{user.name}" cannot {target.verb} resource "{what}" in API group "{target.group}"{where}'
        )
        raise forbidden(target.plural, target.group, target.name, why)

    def _document(self, request: web.Request) -> web.Response:
        if request.method not in {"GET", "HEAD"}:
            raise method_not_allowed(request.method)
        path = request.path.rstrip("/")
        if path == "/openid/v1/jwks":
            return web.json_response(self._tokens.keys(), content_type="application/jwk-set+json")
        if path == "/.well-known/openid-configuration":
            return web.json_response(self._tokens.configuration())
        if path.startswith("/openapi"):
            return self._openapi.answer(request)
        document, media = self._discover(path, request.headers.get("Accept", ""))
        if document is None:
            raise no_such_path()
        data = orjson.dumps(document)
        tag = '"' + hashlib.sha256(data).hexdigest()[:32].upper() + '"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        response = web.Response(body=data, headers={"Content-Type": media, "ETag": tag, "Vary": "Accept"})
        response.enable_compression()
        return response

    def _discover(self, path: str, accept: str) -> tuple[Any, str]:
        form = negotiation.wanted(accept)
        registry = self._registry
        if path in {"/api", "/apis"}:
            if form.form == discovery.AGGREGATED and form.version == "v2":
                return discovery.aggregated(registry, core=path == "/api"), discovery.AGGREGATED_TYPE
            classic = discovery.core_versions() if path == "/api" else discovery.group_list(registry)
            return classic, negotiation.JSON
        parts = path.split("/")[1:]
        document: Any = None
        if parts[0] == "api" and len(parts) == 2:
            document = discovery.resource_list(registry, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            document = discovery.resource_list(registry, parts[1], parts[2])
        elif parts[0] == "apis" and len(parts) == 2:
            document = discovery.group(registry, parts[1])
        elif path == "":
            document = {
                "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            }
        return document, negotiation.JSON
