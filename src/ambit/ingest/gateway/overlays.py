"""What a patch to the objects of a Gateway may say (Istio: `infrastructure.parametersRef`).

Whoever may write a ConfigMap of a namespace need not be one who may make pods there, and must not become one: a patch
chooses how many pods run where and with how much, and how they are reached. What runs in them, with which rights, as
whom and what it mounts is ours, and so is what objects are found by: names, owners, selectors, the mesh's labels.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from ambit.ingest.patch_limits import MESH_DOMAINS, PatchLimits

MOST = 64 * 1024
"""Characters of one patch, with what its aliases stand for."""
CONTAINER = "istio-proxy"
"""The name of a proxy's only container."""
DEPLOYMENT, SERVICE, SERVICE_ACCOUNT = "Deployment", "Service", "ServiceAccount"
AUTOSCALER, BUDGET = "HorizontalPodAutoscaler", "PodDisruptionBudget"

_MOST_TOLD = 10
"""Fields that one problem names."""
_WHOLE = 100
"""Per cent."""
_PORTS = "ports"
"""In place of the values that the Gateway's ports are."""


class Unfit(ValueError):
    """A patch that cannot be used: which field, and why."""


class _Any(msgspec.Struct, frozen=True):
    """Whatever is below."""


class _OneOf(msgspec.Struct, frozen=True):
    values: tuple[str, ...]


class _Names(msgspec.Struct, frozen=True):
    """Labels or annotations, but those of these domains."""

    domains: tuple[str, ...] = MESH_DOMAINS


class _Admitted(msgspec.Struct, frozen=True):
    """Annotations that the limits admit."""


class _Pods(msgspec.Struct, frozen=True):
    """A number of pods, or that of a rollout's `strategy` beyond them."""

    is_strategy: bool = False


class _Context(msgspec.Struct, frozen=True):
    """Ports of the Gateway's Service, and how far people may go."""

    ports: Collection[int]
    limits: PatchLimits


class _Items(msgspec.Struct, frozen=True):
    """A list whose items are known by a key, with what may be said of those that are there."""

    key: str
    values: tuple[str, ...] | str
    members: Mapping[str, Any]


_ANY, _PODS = _Any(), _Pods()


def _any(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, _ANY)


def _object(version: str, kind: str, annotations: Any = _Names(()), **members: Any) -> dict[str, Any]:  # noqa: B008
    metadata = {"labels": _Names(), "annotations": annotations}
    return {"apiVersion": _OneOf((version,)), "kind": _OneOf((kind,)), "metadata": metadata, **members}


_PROBE = _any(
    "initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"
)
_POD = {
    **_any("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "imagePullSecrets"),
    **_any("priorityClassName", "schedulerName", "terminationGracePeriodSeconds"),
    "securityContext": _any("runAsUser", "runAsGroup", "fsGroup"),
    "containers": _Items(
        "name", (CONTAINER,), {"resources": _ANY, "readinessProbe": _PROBE, "startupProbe": _PROBE}
    ),
}
_REPLICAS = {
    **_any("minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"),
    "replicas": _PODS,
    "strategy": _Pods(is_strategy=True),
}
_REACHED = _any(
    *("externalTrafficPolicy", "internalTrafficPolicy", "trafficDistribution", "healthCheckNodePort"),
    *("loadBalancerClass", "loadBalancerSourceRanges", "allocateLoadBalancerNodePorts"),
    *("ipFamilies", "ipFamilyPolicy", "sessionAffinity", "sessionAffinityConfig"),
)
_ALLOWED: Mapping[str, Mapping[str, Any]] = {
    DEPLOYMENT: _object(
        "apps/v1",
        DEPLOYMENT,
        _Admitted(),
        spec={**_REPLICAS, "template": {"metadata": {"annotations": _Admitted()}, "spec": _POD}},
    ),
    SERVICE: _object(
        "v1",
        SERVICE,
        spec={
            **_REACHED,
            "type": _OneOf(("ClusterIP", "NodePort", "LoadBalancer")),
            "ports": _Items("port", _PORTS, _any("nodePort", "name")),
        },
    ),
    SERVICE_ACCOUNT: _object("v1", SERVICE_ACCOUNT, _Admitted(), **_any("imagePullSecrets")),
    AUTOSCALER: _object(
        "autoscaling/v2",
        AUTOSCALER,
        spec={"minReplicas": _PODS, "maxReplicas": _PODS, **_any("metrics", "behavior")},
    ),
    BUDGET: _object(
        "policy/v1", BUDGET, spec=_any("minAvailable", "maxUnavailable", "unhealthyPodEvictionPolicy")
    ),
}


def read_patch(kind: str, text: str, ports: Collection[int], limits: PatchLimits = PatchLimits()) -> str:  # noqa: B008
    """The patch as JSON; `ports` are those of the Gateway's Service. Raises Unfit, which names each field that is not
    for it, as long as they are few."""
    from ambit.objects.documents import Malformed, read_value  # a YAML reader is for those who use patches

    if len(text) > MOST:
        raise Unfit(f"longer than {MOST} characters")
    try:
        value = read_value(text)
    except Malformed as error:
        raise Unfit(str(error)) from error
    if not isinstance(value, dict):
        raise Unfit("it is no mapping")
    if _length(value) > MOST:  # before it is encoded: some lines of aliases stand for gigabytes
        raise Unfit(f"longer than {MOST} characters with what its aliases stand for")
    wrong = list(islice(_wrong(value, _ALLOWED[kind], "", _Context(ports, limits)), _MOST_TOLD + 1))
    if wrong:
        more = "; and more" if len(wrong) > _MOST_TOLD else ""
        raise Unfit("; ".join(wrong[:_MOST_TOLD]) + more)
    return msgspec.json.encode(value, order="deterministic").decode()


def _length(value: Any) -> int:
    """Of the texts in it, and one for each value."""
    match value:
        case str():
            return len(value) + 1
        case dict():
            return 1 + sum(len(name) + _length(below) for name, below in value.items())
        case list():
            return 1 + sum(map(_length, value))
        case _:
            return 1


def _wrong(value: Any, allowed: Any, path: str, context: _Context) -> Iterator[str]:
    match allowed:
        case _Any():
            return
        case _OneOf(values):
            if value not in values:
                yield f"{path} is one of {', '.join(values)}"
        case _Names(domains):
            yield from _wrong_names(value, domains, path)
        case _Admitted():
            yield from _wrong_annotations(value, context.limits, path)
        case _Pods():
            yield from _wrong_pods(value, allowed, context.limits.replicas, path)
        case _Items():
            yield from _wrong_items(value, allowed, path, context)
        case _ if not isinstance(value, dict):
            yield f"{path} is a mapping"
        case _:
            for name, below in value.items():
                where = f"{path}.{name}" if path else name
                if name in allowed:
                    yield from _wrong(below, allowed[name], where, context)
                else:
                    yield f"{where} is not for a patch to change"


def _wrong_names(value: Any, domains: Collection[str], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} is a mapping"
        return
    for name, text in value.items():
        domain = name.partition("/")[0] if "/" in name else ""
        if name.startswith("$") or any(domain == each or domain.endswith(f".{each}") for each in domains):
            yield f"{path}[{name}] is not for a patch to change"
        elif text is not None and not isinstance(text, str):
            yield f"{path}[{name}] is a text: put it in quotes"


def _wrong_annotations(value: Any, limits: PatchLimits, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} is a mapping"
        return
    for name, text in value.items():
        if not limits.admits(name):
            yield f"{path}[{name}] is not admitted (control plane: --patch-annotation)"
        elif text is not None and not isinstance(text, str):
            yield f"{path}[{name}] is a text: put it in quotes"


def _wrong_pods(value: Any, allowed: _Pods, most: int, path: str) -> Iterator[str]:
    """Fewer than none is for the API server to refuse."""
    if allowed.is_strategy:
        rolling = value.get("rollingUpdate") if isinstance(value, dict) else None
        value = rolling.get("maxSurge") if isinstance(rolling, dict) else None
        path = f"{path}.rollingUpdate.maxSurge"
        percent = re.fullmatch(r"([0-9]{1,4})%", value, re.ASCII) if isinstance(value, str) else None
        if percent is not None:
            if int(percent[1]) > _WHOLE:
                yield f"{path} is at most {_WHOLE}%"
            return
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        yield f"{path} is a whole number"
    elif value > most:
        yield f"{path} is at most {most} (control plane: --patch-replicas)"


def _wrong_items(value: Any, allowed: _Items, path: str, context: _Context) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path} is a list"
        return
    known: Collection[Any] = context.ports if allowed.values == _PORTS else allowed.values
    for index, each in enumerate(value):
        where = f"{path}[{index}]"
        if not isinstance(each, dict) or not _is_known(each.get(allowed.key), known):
            names = ", ".join(str(one) for one in sorted(known))
            yield f"{where}: items are known by their {allowed.key}, here {names}"
        else:
            yield from _wrong(each, {allowed.key: _ANY, **allowed.members}, where, context)


def _is_known(value: Any, known: Collection[Any]) -> bool:
    """What is no text and no whole number is nothing's name, and a list has no hash."""
    return isinstance(value, str | int) and value in known
