"""The Istio part of the graph that is about requests: policies and rules about tokens, for L7 proxies."""

from typing import Protocol

import msgspec

from ambit.core.finding import Finding
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.istio.authorization import authorization, is_for_requests
from ambit.ingest.istio.requests import (
    CompiledRequestPolicy,
    Gateways,
    closed_request_policy,
    request_policy,
)
from ambit.ingest.istio.tokens import CompiledTokens, closed_tokens, token_policy
from ambit.ingest.settings import MeshSettings
from ambit.model.jwt import Target, TokenPolicy
from ambit.objects.istio import AuthorizationPolicy, RequestAuthentication, WorkloadSelector

Findings = tuple[Finding, ...]


class EdgePods(Protocol):
    """Which gateways at the edge a policy chooses (`ambit.ingest.gateway_pods`)."""

    def chosen(
        self, context: Context, namespace: str, selector: dict[str, str]
    ) -> tuple[Target, ...]: ...  # pragma: no cover - a protocol

    def of_class(self, context: Context, name: str) -> tuple[Target, ...]: ...  # pragma: no cover

    def is_edge(self, context: Context, target: Target) -> bool: ...  # pragma: no cover


class Requests(msgspec.Struct, frozen=True):
    """Policies and rules by the keys of their objects."""

    policies: Collection[CompiledRequestPolicy]
    tokens: Collection[TokenPolicy]
    findings: Collection[Findings]


def compile_requests(
    graph: Graph,
    policies: Collection[AuthorizationPolicy],
    authentications: Collection[RequestAuthentication],
    edges: EdgePods,
    settings: MeshSettings,
) -> Requests:
    """Adds the collections to a graph."""

    def of_gateways(context: Context, given: RequestAuthentication) -> tuple[Target, ...]:
        if given.spec.target_ref or given.spec.target_refs:
            return ()
        return edges.chosen(context, given.metadata.namespace, _labels(given.spec.selector))

    compiled = graph.derive(
        "compiled policies for requests",
        policies,
        lambda context, given: request_policy(given, settings, _gateways(context, given, edges)),
        on_failure=lambda context, given: closed_request_policy(
            given, settings, _gateways(context, given, edges)
        ),
    )
    rules: Collection[CompiledTokens] = graph.derive(
        "compiled rules about tokens",
        authentications,
        lambda context, given: token_policy(given, settings, of_gateways(context, given)),
        on_failure=lambda context, given: closed_tokens(given, settings, of_gateways(context, given)),
    )

    def about_policy(context: Context, given: AuthorizationPolicy) -> Findings | None:
        made = context.get(compiled, given.metadata.key)
        if made is None:
            return None
        if is_for_requests(given):
            return made.findings or None
        # What is wrong with it for nodes is said already.
        said = {(each.code, each.path) for each in authorization(given, settings).findings}
        return tuple(each for each in made.findings if (each.code, each.path) not in said) or None

    about_policies = graph.derive(
        "findings of policies for requests",
        policies,
        about_policy,
        key=lambda found: f"{found[0].origin} (requests)",
    )
    about_tokens = graph.derive(
        "findings about tokens",
        rules,
        lambda _, each: each.findings or None,
        key=lambda found: str(found[0].origin),
    )
    return Requests(
        compiled,
        graph.derive("rules about tokens", rules, lambda _, each: each.policy),
        graph.join("findings about requests", [about_policies, about_tokens]),
    )


def _gateways(context: Context, given: AuthorizationPolicy, edges: EdgePods) -> Gateways:
    namespace, spec = given.metadata.namespace, given.spec
    if not is_for_requests(given):
        return Gateways(chosen=edges.chosen(context, namespace, _labels(spec.selector)))
    references = (*((spec.target_ref,) if spec.target_ref else ()), *spec.target_refs)
    classes = {
        each.name: edges.of_class(context, each.name) for each in references if each.kind == "GatewayClass"
    }
    named = {
        Target("GatewayClass", "", each.name)
        if each.kind == "GatewayClass"
        else Target("Gateway", namespace, each.name)
        for each in references
        if each.kind in ("Gateway", "GatewayClass")
    }
    found = frozenset(each for each in named if edges.is_edge(context, each))
    return Gateways(classes=classes, edges=found.union(*classes.values()))


def _labels(selector: WorkloadSelector | None) -> dict[str, str]:
    return selector.match_labels if selector else {}
