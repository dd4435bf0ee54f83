"""Pod subresources: bindings, eviction, logs, exec, port-forward."""

import orjson
from aiohttp import web

from ambit.local.apiserver.conditions import merge_conditions
from ambit.local.apiserver.deletion import read_options
from ambit.local.apiserver.failures import ApiFailure, bad_request, conflict
from ambit.local.apiserver.negotiation import decode
from ambit.local.apiserver.pods.exec import serve_attach, serve_exec
from ambit.local.apiserver.pods.forward import serve_forward
from ambit.local.apiserver.pods.logs import serve_log
from ambit.local.apiserver.requests import Target
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.strategies.workloads import selects
from ambit.local.apiserver.writes import Writer
from ambit.local.streams import PodStreams


def _success(code: int = 201) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
    return web.json_response(body=orjson.dumps(body), status=code)


class PodRequests:
    """Serves `pods/...` subresources that are not status."""

    def __init__(self, writer: Writer, streams: PodStreams | None) -> None:
        self._writer = writer
        self.streams = streams

    def _pods(self) -> Resource:
        resource = self._writer.registry.find("", "v1", "pods")
        assert resource is not None
        return resource

    async def serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Raises ApiFailure."""
        match target.subresource:
            case "binding":
                return self.bind(target.namespace, target.name, await self._json(request))
            case "eviction":
                return self._evict(target, await self._json(request))
            case "log" | "exec" | "attach" | "portforward" as name:
                return await self._stream(request, target, name)
            case name:
                raise ApiFailure(501, "NotImplemented", f"pods/{name} is not implemented")

    async def _stream(self, request: web.Request, target: Target, name: str) -> web.StreamResponse:
        pod = self._writer.existing(self._pods(), target.namespace, target.name).decode()
        if self.streams is None:
            raise ApiFailure(503, "ServiceUnavailable", "no pod runner is connected to this API server")
        if name != "log" and (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            phase = pod["status"]["phase"]
            raise bad_request(f"cannot {name} in a completed pod; current phase is {phase}")
        serve = {"log": serve_log, "exec": serve_exec, "attach": serve_attach}.get(name, serve_forward)
        return await serve(request, pod, self.streams)

    async def _json(self, request: web.Request) -> Json:
        body = decode(request.headers.get("Content-Type", ""), await request.read())
        if not isinstance(body, dict):
            raise bad_request("the body of the request must be an object")
        return body

    def bind(self, namespace: str, name: str, body: Json) -> web.Response:
        """Assigns a pod to the node that the Binding names. Raises ApiFailure 400, 404, 409."""
        entry = self._writer.existing(self._pods(), namespace, name)
        node = (body.get("target") or {}).get("name")
        if not node:
            raise bad_request("target.name: Required value")
        pod = entry.decode()
        if pod["spec"].get("nodeName"):
            why = f"pod {name} is already assigned to node {pod['spec']['nodeName']}"
            raise conflict("pods/binding", "", name, why)
        pod["spec"]["nodeName"] = node
        status = pod.setdefault("status", {})
        status["conditions"] = merge_conditions(
            status.get("conditions") or [], [("PodScheduled", True, "Scheduled", "")]
        )
        for condition in status["conditions"]:
            if condition["type"] == "PodScheduled":
                condition.pop("reason")
                condition.pop("message")
                condition["lastProbeTime"] = None
        self._writer.store.put("pods", pod)
        return _success()

    def _evict(self, target: Target, body: Json) -> web.Response:
        """Deletes the pod unless a PodDisruptionBudget has no disruption left."""
        entry = self._writer.existing(self._pods(), target.namespace, target.name)
        self._check_budget(target, entry.labels)
        options = read_options(body.get("deleteOptions"), {})
        self._writer.delete(self._pods(), entry, options)
        return _success()

    def _check_budget(self, target: Target, labels: dict[str, str]) -> None:
        for entry in self._writer.store.select("poddisruptionbudgets.policy", target.namespace):
            budget = entry.decode()
            if not selects((budget.get("spec") or {}).get("selector") or {}, labels):
                continue
            if (budget.get("status") or {}).get("disruptionsAllowed", 0) < 1:
                message = "Cannot evict pod as it would violate the pod's disruption budget."
                raise ApiFailure(429, "TooManyRequests", message)
