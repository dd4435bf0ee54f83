"""Objects of the Gateway API for tests, as a user would write them, each with the resource it belongs to."""

from typing import Any

from tests.ingest.build import Given

GROUP = "gateway.networking.k8s.io"
HBONE = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
SERVICE: dict[str, Any] = {"group": "", "kind": "Service"}


def gateway_class(name: str, controller: str = "ambit.io/waypoint-controller", **labels: str) -> Given:
    metadata = {"name": name, "labels": {key.replace("_", "/"): each for key, each in labels.items()}}
    return f"gatewayclasses.{GROUP}", {"metadata": metadata, "spec": {"controllerName": controller}}


def waypoint(
    name: str = "waypoint",
    *,
    namespace: str = "default",
    takes: str = "",
    listeners: tuple[dict[str, Any], ...] = (HBONE,),
    of_class: str = "ambit-waypoint",
    allowed: dict[str, Any] | None = None,
    **spec: Any,
) -> Given:
    labels = {"istio.io/waypoint-for": takes} if takes else {}
    given = [{**each, "allowedRoutes": {"namespaces": allowed}} if allowed else each for each in listeners]
    return f"gateways.{GROUP}", {
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "generation": 3, "uid": "u"},
        "spec": {"gatewayClassName": of_class, "listeners": given, **spec},
    }


def namespace(name: str, **labels: str) -> Given:
    return "namespaces", {"metadata": {"name": name, "labels": labels}}


def bound(given: Given, waypoint: str, in_namespace: str = "") -> Given:
    """The object with the label that asks for a waypoint."""
    resource, body = given
    labels = {**(body["metadata"].get("labels") or {}), "istio.io/use-waypoint": waypoint}
    if in_namespace:
        labels["istio.io/use-waypoint-namespace"] = in_namespace
    return resource, {**body, "metadata": {**body["metadata"], "labels": labels}}


def parent(name: str = "web", **more: Any) -> dict[str, Any]:
    return {**SERVICE, "name": name, **more}


def route(
    *rules: dict[str, Any],
    name: str = "route",
    namespace: str = "default",
    parents: tuple[dict[str, Any], ...] = ({**SERVICE, "name": "web"},),
    created: str = "2026-01-01T00:00:00Z",
    kind: str = "httproutes",
    **spec: Any,
) -> Given:
    return f"{kind}.{GROUP}", {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "generation": 2},
        "spec": {"parentRefs": list(parents), "rules": list(rules), **spec},
    }


def grpc_route(*rules: dict[str, Any], **more: Any) -> Given:
    return route(*rules, kind="grpcroutes", **more)


def to(name: str, port: int = 80, **more: Any) -> dict[str, Any]:
    """A backend."""
    return {"name": name, "port": port, **more}


def grant(
    namespace: str, from_namespace: str, *, kind: str = "HTTPRoute", name: str = "", to_kind: str = "Service"
) -> Given:
    target = {"group": "", "kind": to_kind, **({"name": name} if name else {})}
    return f"referencegrants.{GROUP}", {
        "metadata": {"name": "grant", "namespace": namespace},
        "spec": {"from": [{"group": GROUP, "kind": kind, "namespace": from_namespace}], "to": [target]},
    }


def edge(
    *listeners: dict[str, Any],
    name: str = "edge",
    namespace: str = "default",
    of_class: str = "ambit",
    **spec: Any,
) -> Given:
    """A Gateway at the edge."""
    return f"gateways.{GROUP}", {
        "metadata": {"name": name, "namespace": namespace, "generation": 3, "uid": "u"},
        "spec": {"gatewayClassName": of_class, "listeners": list(listeners or (listener(),)), **spec},
    }


def listener(name: str = "http", port: int = 80, protocol: str = "HTTP", **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": protocol, **more}


def to_edge(*rules: dict[str, Any], parents: tuple[dict[str, Any], ...] = ({},), **more: Any) -> Given:
    """A route whose parents are the Gateway `edge`, with these parts."""
    return route(*rules, parents=tuple({"name": "edge", **each} for each in parents), **more)


def roots(name: str, pem: str, *, namespace: str = "default") -> Given:
    """A ConfigMap with roots of trust."""
    return "configmaps", {"metadata": {"name": name, "namespace": namespace}, "data": {"ca.crt": pem}}


def patches(name: str, *, namespace: str = "default", of_class: str = "", **texts: str) -> Given:
    """A ConfigMap with patches to what is made of Gateways; `of_class`: of all of that class."""
    labels = {"gateway.istio.io/defaults-for-class": of_class} if of_class else {}
    names = {"service_account": "serviceAccount", "autoscaler": "horizontalPodAutoscaler"}
    names["budget"] = "podDisruptionBudget"
    data = {names.get(key, key): text for key, text in texts.items()}
    return "configmaps", {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "data": data}


def parameters(name: str, kind: str = "ConfigMap", group: str = "") -> dict[str, Any]:
    """`infrastructure` of a Gateway that refers to them."""
    return {"parametersRef": {"group": group, "kind": kind, "name": name}}
