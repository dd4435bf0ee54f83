"""`targetRef` and `targetRefs` of Istio's policies for L7 proxies."""

from collections.abc import Iterable
from typing import get_args

from ambit.core.finding import Level
from ambit.ingest.istio.values import Report
from ambit.model.jwt import Target, TargetKind
from ambit.objects.istio import TargetRef

_GROUPS = {
    "Service": "",
    "ServiceEntry": "networking.istio.io",
    "Gateway": "gateway.networking.k8s.io",
    "GatewayClass": "gateway.networking.k8s.io",
}


def targets_of(
    single: TargetRef | None,
    several: Iterable[TargetRef],
    namespace: str,
    root_namespace: str,
    report: Report,
) -> tuple[Target, ...]:
    """Those that an object of `namespace` can have; of the others the report says why."""
    named = [("spec.targetRef", single)] if single else []
    named += [(f"spec.targetRefs[{i}]", each) for i, each in enumerate(several)]
    found = []
    for path, reference in named:
        kind = next((each for each in get_args(TargetKind) if each == reference.kind), None)
        problem = ""
        if kind is None or reference.group not in (
            _GROUPS[kind],
            "core" if kind == "Service" else _GROUPS[kind],
        ):
            problem = (
                f"{reference.group}/{reference.kind} is none of Service, ServiceEntry, Gateway, GatewayClass"
            )
        elif reference.namespace not in ("", namespace):
            problem = "a target is in the object's own namespace"
        elif kind == "GatewayClass" and namespace != root_namespace:
            problem = f"a GatewayClass is a target in {root_namespace} only"
        if problem:
            report.say("AMB0233", Level.ERROR, path, f"{problem}; it is for nobody")
        elif kind is not None:
            found.append(Target(kind, "" if kind == "GatewayClass" else namespace, reference.name))
    return tuple(dict.fromkeys(found))
