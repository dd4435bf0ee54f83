"""What people want of the objects that are made of a Gateway: patches in ConfigMaps (Istio 1.31:
`deploymentcontroller.go`; Gateway API v1.6 `GatewayInfrastructure.parametersRef`).

- Those for a class (label `gateway.istio.io/defaults-for-class`, in the system namespace or the root namespace) go
  first, of several ConfigMaps the oldest; then that of `spec.infrastructure.parametersRef`, of the Gateway's namespace.
- One that cannot be used as a whole changes nothing: the Gateway is not accepted, reason `InvalidParameters`, and what
  was made of it before goes on as it is.
"""

from collections.abc import Collection, Iterator
from typing import TypeVar

import msgspec

from ambit.core.names import CLASS_DEFAULTS_LABEL, HBONE_PORT, READINESS_PORT
from ambit.graph import collection
from ambit.graph.engine import Context
from ambit.ingest.gateway.conditions import ACCEPTED, no
from ambit.ingest.gateway.edge import EdgeGateway
from ambit.ingest.gateway.gateways import CompiledGateway
from ambit.ingest.gateway.overlays import (
    AUTOSCALER,
    BUDGET,
    DEPLOYMENT,
    SERVICE,
    SERVICE_ACCOUNT,
    Unfit,
    read_patch,
)
from ambit.ingest.gateway.topology import PROXY_CONFIG
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import Parameters, Patch, Proxy, ProxyKind
from ambit.model.status import Condition
from ambit.objects import gateway
from ambit.objects.kube import ConfigMap

Compiled = TypeVar("Compiled", EdgeGateway, CompiledGateway)
INVALID = "InvalidParameters"
_ANNOTATIONS = "spec.infrastructure.annotations"
_MOST_NAMED = 5
_REFERENCE = "spec.infrastructure.parametersRef"


class ParameterMaps:
    """The ConfigMaps with patches."""

    def __init__(self, maps: collection.Collection[ConfigMap], settings: MeshSettings) -> None:
        self._maps = maps
        self._limits = settings.patches
        places = (settings.system_namespace, settings.root_namespace)

        def classes(given: ConfigMap) -> list[str]:
            name = given.metadata.labels.get(CLASS_DEFAULTS_LABEL, "")
            return [name] if name and given.metadata.namespace in places else []

        self._defaults = maps.index(classes)

    def applied(self, context: Context, given: gateway.Gateway, compiled: Compiled) -> Compiled:
        """The Gateway with what is wanted of its objects; what cannot be had is said."""
        proxy = compiled.proxy
        if proxy is None or proxy.kind is ProxyKind.INLINE:
            return compiled
        parameters = self._of(context, given, _ports(proxy))
        conditions = tuple(self._told(each, given, parameters.problem) for each in compiled.conditions)
        return msgspec.structs.replace(
            compiled, proxy=msgspec.structs.replace(proxy, parameters=parameters), conditions=conditions
        )

    def _told(self, condition: Condition, given: gateway.Gateway, problem: str) -> Condition:
        if condition.type != ACCEPTED or not condition.holds:
            return condition
        if problem:
            return no(ACCEPTED, INVALID, problem)
        kept = [
            each
            for each in sorted(given.spec.infrastructure.annotations)
            if each != PROXY_CONFIG and not self._limits.admits(each)
        ]
        if not kept:
            return condition
        more = f" and {len(kept) - _MOST_NAMED} more" if len(kept) > _MOST_NAMED else ""
        names = ", ".join(kept[:_MOST_NAMED]) + more
        text = f"{_ANNOTATIONS}: on its Service only, and not on its pods, are {names}"
        return msgspec.structs.replace(condition, message="; ".join(filter(None, (condition.message, text))))

    def _of(self, context: Context, given: gateway.Gateway, ports: Collection[int]) -> Parameters:
        try:
            found = [
                patch
                for field, one in self._sources(context, given)
                for patch in self._patches(field, one, ports)
            ]
        except Unfit as error:
            return Parameters(problem=str(error))
        return Parameters(tuple(found))

    def _sources(self, context: Context, given: gateway.Gateway) -> Iterator[tuple[str, ConfigMap]]:
        class_name = given.spec.gateway_class_name
        for_class = sorted(context.lookup(self._defaults, class_name), key=lambda each: each.metadata.age)
        if for_class:
            yield f"label {CLASS_DEFAULTS_LABEL}", for_class[0]
        wanted = given.spec.infrastructure.parameters_ref
        if wanted is None:
            return
        if (wanted.group, wanted.kind) != ("", "ConfigMap"):
            kind = f"{wanted.kind}.{wanted.group}" if wanted.group else wanted.kind
            raise Unfit(f"{_REFERENCE}: {kind} {wanted.name}: patches are in ConfigMaps")
        key = f"{given.metadata.namespace}/{wanted.name}"
        own = context.get(self._maps, key)
        if own is None:
            raise Unfit(f"{_REFERENCE}: ConfigMap {key} does not exist")
        yield _REFERENCE, own

    def _patches(self, field: str, given: ConfigMap, ports: Collection[int]) -> Iterator[Patch]:
        data = given.data
        texts = (
            (
                ("deployment", DEPLOYMENT, data.deployment),
                ("service", SERVICE, data.service),
                ("serviceAccount", SERVICE_ACCOUNT, data.service_account),
                ("horizontalPodAutoscaler", AUTOSCALER, data.horizontal_pod_autoscaler),
                ("podDisruptionBudget", BUDGET, data.pod_disruption_budget),
            )
            if data is not None
            else ()
        )
        where = f"{field}: ConfigMap {given.metadata.key}"
        if not any(text for _, _, text in texts):
            names = "deployment, service, serviceAccount, horizontalPodAutoscaler, podDisruptionBudget"
            raise Unfit(f"{where} has none of {names}")
        problems = []
        for name, kind, text in texts:
            if text:
                try:
                    yield Patch(kind, read_patch(kind, text, ports, self._limits))
                except Unfit as error:
                    problems.append(f"{name}: {error}")
        if problems:
            raise Unfit(f"{where}, {'; '.join(problems)}")


def _ports(proxy: Proxy) -> frozenset[int]:
    """Of the Service in front of a proxy."""
    own = {each.port for each in proxy.listeners} if proxy.kind is ProxyKind.GATEWAY else {HBONE_PORT}
    return frozenset({*own, READINESS_PORT})
