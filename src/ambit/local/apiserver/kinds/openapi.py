"""OpenAPI v3: the index, and one document per group version, built on request (kubectl explain, apply, validation).

Schemas of built-in kinds come from the vendored document with descriptions; it is decoded per request and not kept.
OpenAPI v2 is an empty document: kubectl asks for it about kinds that v3 does not have, and says what is
wrong with them only after an answer.
"""

import hashlib
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import orjson
from aiohttp import web

from ambit.local.apiserver.failures import no_such_path
from ambit.local.apiserver.kinds.custom import CustomKinds
from ambit.local.apiserver.resources import Registry, Resource
from ambit.local.apiserver.storage.store import Store
from ambit.objects import builtin
from ambit.objects.crds import KUBERNETES_VERSION, read_bundle
from ambit.objects.structural import INT_OR_STRING, QUANTITY

_YEAR = 365 * 86400
_REF = "#/components/schemas/"
_GVK = "x-kubernetes-group-version-kind"
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "pretty")
_INFO = {"title": "Kubernetes", "version": KUBERNETES_VERSION}
_DELETE_QUERY = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy", "pretty")


class OpenApi:
    """Answers /openapi/... ."""

    def __init__(self, registry: Registry, store: Store, custom: CustomKinds) -> None:
        self._registry = registry
        self._store = store
        self._custom = custom

    def answer(self, request: web.Request) -> web.Response:
        """Raises ApiFailure 404."""
        path = request.path.strip("/").split("/")[1:]
        if path[:1] == ["v2"]:
            return _empty_v2(request.headers.get("Accept", ""))
        if path[:1] != ["v3"]:
            raise no_such_path()
        if len(path) == 1:
            return _answer(self._index(), {})
        group, version = _group_version(path[1:])
        if not self._registry.of(group, version):
            raise no_such_path()
        digest = self._digest(group, version)
        headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache, private"}
        if request.query.get("hash") == digest:
            headers |= {
                "Cache-Control": "public, immutable",
                "Expires": formatdate(time.time() + _YEAR, usegmt=True),
            }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return _answer(self._document(group, version), headers)

    def _index(self) -> dict[str, Any]:
        paths = {}
        for group, versions in self._registry.groups().items():
            for version in versions:
                name = f"apis/{group}/{version}" if group else f"api/{version}"
                digest = self._digest(group, version)
                paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
        return {"paths": paths}

    def _digest(self, group: str, version: str) -> str:
        """Changes when the document would."""
        parts = [KUBERNETES_VERSION]
        for resource in self._registry.of(group, version):
            entry = self._store.get("customresourcedefinitions.apiextensions.k8s.io", "", resource.custom)
            parts.append(f"{resource.plural}@{entry.revision if entry else 0}")
        return hashlib.sha256(",".join(parts).encode()).hexdigest()[:32].upper()

    def _document(self, group: str, version: str) -> dict[str, Any]:
        resources = self._registry.of(group, version)
        texts = read_bundle("kubernetes-openapi")
        schemas: dict[str, Any] = {}
        paths: dict[str, Any] = {}
        for resource in resources:
            name = self._schema(resource, texts, schemas)
            _add_paths(resource, name, paths)
        return {
            "openapi": "3.0.0",
            "info": _INFO,
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _schema(self, resource: Resource, texts: dict[str, Any], schemas: dict[str, Any]) -> str:
        """Adds the kind's schema and all it refers to; returns its name."""
        if not resource.custom:
            found = builtin.definition_name(resource.group, resource.version, resource.kind)
            if found is None:
                return ""
            _add_definition(found, texts, schemas)
            return found
        reverse = ".".join(reversed(resource.group.split(".")))
        name = f"{reverse}.{resource.version}.{resource.kind}"
        schema = self._custom.version(resource)["schema"]
        properties = {**schema.get("properties", {})}
        for field in ("apiVersion", "kind"):
            properties.setdefault(field, {"type": "string"})
        reference = {"allOf": [{"$ref": _REF + builtin.OBJECT_META}], "description": "Standard metadata."}
        properties["metadata"] = reference
        _add_definition(builtin.OBJECT_META, texts, schemas)
        schemas[name] = {**schema, "properties": properties, _GVK: [resource.gvk()]}
        return name


def _group_version(path: list[str]) -> tuple[str, str]:
    """From `api/v1` or `apis/GROUP/VERSION`. Raises ApiFailure 404."""
    match path:
        case ["api", version]:
            return "", version
        case ["apis", group, version]:
            return group, version
        case _:
            raise no_such_path()


def _empty_v2(accept: str) -> web.Response:
    """As JSON, or as the protobuf message `openapi.v2.Document` with its first field, `swagger`."""
    if "protobuf" not in accept:
        return _answer({"swagger": "2.0", "info": _INFO, "paths": {}}, {})
    kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    return web.Response(body=b"\x0a\x032.0", content_type=kind, headers={"Vary": "Accept"})


def _answer(body: dict[str, Any], headers: dict[str, str]) -> web.Response:
    response = web.Response(body=orjson.dumps(body), content_type="application/json", headers=headers)
    response.headers["Vary"] = "Accept"
    response.enable_compression()
    return response


def _add_definition(name: str, texts: dict[str, Any], schemas: dict[str, Any]) -> None:
    if name not in schemas and name in texts:
        schemas[name] = {}
        schemas[name] = _publish(texts[name], texts, schemas)


def _publish(schema: Any, texts: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """References become OpenAPI's; what they name is added."""
    if not isinstance(schema, Mapping):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref":
            _add_definition(value, texts, schemas)
            reference = {"$ref": _REF + value}
            out |= reference if len(schema) == 1 else {"allOf": [reference]}
        elif key == "properties":
            out[key] = {name: _publish(member, texts, schemas) for name, member in value.items()}
        elif key in {"items", "additionalProperties"}:
            out[key] = _publish(value, texts, schemas)
        elif key == INT_OR_STRING:
            out |= {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
        elif key == QUANTITY:
            out["oneOf"] = [{"type": "string"}, {"type": "number"}]
        elif key != "x-kubernetes-preserve-unknown-fields" and not (key == "type" and QUANTITY in schema):
            out[key] = value
    return out


def _add_paths(resource: Resource, schema: str, paths: dict[str, Any]) -> None:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if resource.namespaced:
        root += "/namespaces/{namespace}"
    collection, item = f"{root}/{resource.plural}", f"{root}/{resource.plural}/{{name}}"
    verbs = set(resource.verbs)
    operations = {
        collection: {"list": "get", "create": "post", "deletecollection": "delete"},
        item: {"get": "get", "update": "put", "patch": "patch", "delete": "delete"},
    }
    for path, methods in operations.items():
        found = {
            method: _operation(resource, schema, verb) for verb, method in methods.items() if verb in verbs
        }
        if found:
            paths[path] = found


def _operation(resource: Resource, schema: str, verb: str) -> dict[str, Any]:
    names: tuple[str, ...] = _DELETE_QUERY if verb in {"delete", "deletecollection"} else _QUERY
    if verb in {"get", "list"}:
        names = ("pretty",)
    return {
        "operationId": f"{verb}{resource.kind}",
        "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"$ref": _REF + schema}}},
            }
        },
        "x-kubernetes-action": {"create": "post", "update": "put"}.get(verb, verb),
        _GVK: resource.gvk(),
    }
