"""What is written and does nothing: classes that no proxy serves, selectors that fit nothing, kinds that are not read.

Pure. Objects are as people write them. What a selector may fit are Pods, WorkloadEntries and templates of pods; a
namespace without any of them is left out, because files often have policies only.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.core.names import GATEWAY_CLASS_NAMES, GATEWAY_NAME_LABEL, INLINE_CLASS, WAYPOINT_CLASSES

Object = Mapping[str, Any]
Pair = tuple[str, str]

GROUPS = frozenset(
    {
        "networking.istio.io",
        "security.istio.io",
        "telemetry.istio.io",
        "extensions.istio.io",
        "gateway.networking.k8s.io",
        "gateway.networking.x-k8s.io",
    }
)
"""Whose objects people expect the mesh to read."""
CLASSES = (*WAYPOINT_CLASSES, *GATEWAY_CLASS_NAMES, INLINE_CLASS)
_GATEWAYS, _INGRESSES = "gateway.networking.k8s.io", "networking.k8s.io"
_INGRESS_CLASS, _INGRESS_CONTROLLER = "istio", "istio.io/ingress-controller"
_INGRESS_PATHS = (("metadata", "annotations", "kubernetes.io/ingress.class"), ("spec", "ingressClassName"))
INGRESS_TEXT = (
    "ambit serves no Ingress, so no client reaches its backends by it; "
    "write a Gateway with gatewayClassName: istio and an HTTPRoute"
)
_POLICIES = frozenset({"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "Telemetry"})
_TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("metadata",),
    ("", "ReplicationController"): ("spec", "template", "metadata"),
    ("apps", "Deployment"): ("spec", "template", "metadata"),
    ("apps", "ReplicaSet"): ("spec", "template", "metadata"),
    ("apps", "StatefulSet"): ("spec", "template", "metadata"),
    ("apps", "DaemonSet"): ("spec", "template", "metadata"),
    ("batch", "Job"): ("spec", "template", "metadata"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template", "metadata"),
    ("networking.istio.io", "WorkloadGroup"): ("spec", "metadata"),
    ("networking.istio.io", "WorkloadEntry"): ("spec",),
}
"""Where the labels are that a selector may fit."""


def findings_of(objects: Iterable[Object], root_namespace: str) -> Iterator[Finding]:
    """AMB0004 to AMB0006 of objects, which have their namespaces; `root_namespace` has policies for all others."""
    given = [(*_group_and_kind(each), each) for each in objects]
    known = {_name(each) for group, kind, each in given if (group, kind) == (_GATEWAYS, "GatewayClass")}
    labels = _Labels(given)
    controllers = ingress_controllers(each for group, kind, each in given if kind == "IngressClass")
    for group, kind, each in given:
        reference = ObjectRef(kind, _namespace(each), _name(each))
        if (group, kind) == (_GATEWAYS, "Gateway"):
            text = _unserved(str(_at(each, "spec", "gatewayClassName") or ""), known)
            if text:
                yield Finding("AMB0004", Level.WARNING, reference, "spec.gatewayClassName", text)
        if (group, kind) == (_INGRESSES, "Ingress") and (path := istio_ingress_field(each, controllers)):
            yield Finding("AMB0006", Level.WARNING, reference, path, INGRESS_TEXT)
        path, wanted = _selector(group, kind, each)
        everywhere = kind in _POLICIES and reference.namespace == root_namespace
        if wanted and not labels.fits(wanted, "" if everywhere else reference.namespace):
            text = ", ".join(f"{name}={value}" for name, value in sorted(wanted.items()))
            scope = "what was given" if everywhere else f"namespace {reference.namespace} of what was given"
            text = f"no pod and no WorkloadEntry in {scope} has the labels {text}"
            yield Finding("AMB0005", Level.WARNING, reference, path, text)


def unread_kind(kind: str, full_name: str) -> Finding:
    """AMB0006: an object of a group of the mesh whose kind this version does not read."""
    namespace, _, name = full_name.rpartition("/")
    text = "this version does nothing with the kind"
    return Finding("AMB0006", Level.WARNING, ObjectRef(kind, namespace, name), "", text)


def ingress_controllers(classes: Iterable[Object]) -> dict[str, str]:
    """The controllers of IngressClasses by the names of the classes."""
    return {_name(each): str(_at(each, "spec", "controller") or "") for each in classes}


def istio_ingress_field(ingress: Object, controllers: Mapping[str, str]) -> str:
    """Returns the path of the field that gives an Ingress to Istio; empty if none does.

    As istiod does, the annotation counts before the class. A class of the name `istio` that is not in `controllers`
    is Istio's.
    """
    for path in _INGRESS_PATHS:
        name = str(_at(ingress, *path) or "")
        if name:
            of_istio = name == _INGRESS_CLASS
            if path == _INGRESS_PATHS[1] and name in controllers:
                of_istio = controllers[name] == _INGRESS_CONTROLLER
            return ".".join(path) if of_istio else ""
    return ""


def _unserved(name: str, known: Iterable[str]) -> str:
    if name in CLASSES or name in known:
        return ""
    nearest = get_close_matches(name, CLASSES, 1, 0.8)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"ambit has no class {name!r}, and no GatewayClass of that name was given: nothing serves it{hint}"


def _selector(group: str, kind: str, each: Object) -> tuple[str, Mapping[str, str]]:
    """Field path and labels of an object's selector; no labels where it has none."""
    if group in GROUPS and kind in _POLICIES:
        path: tuple[str, ...] = ("spec", "selector", "matchLabels")
    elif (group, kind) == ("networking.istio.io", "ServiceEntry"):
        path = ("spec", "workloadSelector", "labels")
    elif (group, kind) == ("", "Service"):
        path = ("spec", "selector")
    else:
        return "", {}
    found = _at(each, *path)
    return ".".join(path), found if isinstance(found, dict) else {}


class _Labels:
    """What selectors may fit, by namespace and one pair of labels; the empty namespace has all."""

    def __init__(self, given: Iterable[tuple[str, str, Object]]) -> None:
        self._by_pair: dict[tuple[str, Pair], list[frozenset[Pair]]] = defaultdict(list)
        self._filled = set()
        for group, kind, each in given:
            found: Any = None
            if (group, kind) in _TEMPLATES:
                found = _at(each, *_TEMPLATES[group, kind], "labels") or {}
                self._filled |= {"", _namespace(each)}
            elif (group, kind) == (_GATEWAYS, "Gateway"):
                found = {GATEWAY_NAME_LABEL: _name(each)}
            if not isinstance(found, dict):
                continue
            pairs = frozenset((str(name), str(value)) for name, value in found.items())
            for pair in pairs:
                for namespace in ("", _namespace(each)):
                    self._by_pair[namespace, pair].append(pairs)

    def fits(self, wanted: Mapping[str, str], namespace: str) -> bool:
        if namespace not in self._filled:
            return True
        pairs = {(str(name), str(value)) for name, value in wanted.items()}
        return any(pairs <= each for each in self._by_pair.get((namespace, min(pairs)), ()))


def _group_and_kind(each: Object) -> tuple[str, str]:
    return str(each["apiVersion"]).rpartition("/")[0], str(each["kind"])


def _at(each: Any, *path: str) -> Any:
    for name in path:
        each = each.get(name) if isinstance(each, dict) else None
    return each


def _name(each: Object) -> str:
    return str(_at(each, "metadata", "name") or "")


def _namespace(each: Object) -> str:
    return str(_at(each, "metadata", "namespace") or "")
