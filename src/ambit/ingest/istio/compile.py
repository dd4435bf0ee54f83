"""The Istio part of the graph: policies, what is wrong with them, and which workloads must name them."""

from collections.abc import Callable, Mapping

import msgspec

from ambit.core.finding import Finding, Level
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.istio.authorization import CompiledPolicy, authorization, closed_authorization
from ambit.ingest.istio.compile_requests import EdgePods, compile_requests
from ambit.ingest.istio.peer import (
    Mode,
    PeerPolicy,
    oldest,
    own_authorization,
    peer_policy,
    policy_name,
    static_strict,
    static_strict_key,
)
from ambit.ingest.istio.requests import CompiledRequestPolicy
from ambit.ingest.istio.telemetry import CompiledTelemetry, default_telemetry, telemetry
from ambit.ingest.selectors import Selectors
from ambit.ingest.settings import MeshSettings
from ambit.model.jwt import TokenPolicy
from ambit.model.policy import Authorization
from ambit.model.telemetry import TelemetryPolicy
from ambit.objects.istio import AuthorizationPolicy, PeerAuthentication, RequestAuthentication
from ambit.objects.telemetry import Telemetry

Attach = Callable[[Context, str, Mapping[str, str]], tuple[str, ...]]
Findings = tuple[Finding, ...]
_OF_REQUESTS = ("AMB0201", "AMB0202")
"""Codes that say what nodes do not see."""


class IstioSources(msgspec.Struct, frozen=True):
    authorization_policies: Collection[AuthorizationPolicy]
    peer_authentications: Collection[PeerAuthentication]
    request_authentications: Collection[RequestAuthentication]
    telemetries: Collection[Telemetry]


class IstioCollections(msgspec.Struct, frozen=True):
    """`attach` gives the policies that a workload with these labels must name, in order."""

    authorizations: Collection[Authorization]
    tokens: Collection[TokenPolicy]
    telemetry: Collection[TelemetryPolicy]
    findings: Collection[Findings]
    attach: Attach
    requests: Collection[CompiledRequestPolicy]
    """By key of the object."""


class _Selecting(msgspec.Struct, frozen=True):
    """The part of a selector-scoped policy that workloads depend on; its rules may change without them."""

    key: str
    namespace: str
    selector: dict[str, str]


class _Level(msgspec.Struct, frozen=True):
    """What the policies without selector in one namespace come to; in the root namespace that is the mesh."""

    namespace: str
    mode: Mode


class _Levels:
    """The peer policies by level. Workloads depend on the outcome of a level, not on the policies in it."""

    def __init__(self, graph: Graph, policies: Collection[PeerPolicy], settings: MeshSettings) -> None:
        self._root = settings.root_namespace
        self._whole = policies.index(lambda policy: [] if policy.selector else [policy.namespace])
        self._selectors = Selectors(graph, policies)
        self._levels = graph.derive("peer levels", policies, self._level, key=lambda level: level.namespace)

    def inherited(self, context: Context, namespace: str) -> bool:
        """Whether a workload without a policy of its own is STRICT: its namespace's mode, else the mesh's."""
        for scope in (namespace, self._root):
            level = context.get(self._levels, scope)
            if level is not None and level.mode is not Mode.UNSET:
                return level.mode is Mode.STRICT
        return False

    def selecting(self, context: Context, namespace: str, labels: Mapping[str, str]) -> list[PeerPolicy]:
        """The policies that select a workload with these labels."""
        return self._selectors.selecting(context, namespace, labels) if namespace != self._root else []

    def first(self, context: Context, namespace: str) -> PeerPolicy | None:
        """The policy without selector that counts in a namespace."""
        return oldest(context.lookup(self._whole, namespace))

    def _level(self, context: Context, policy: PeerPolicy) -> _Level | None:
        first = None if policy.selector else self.first(context, policy.namespace)
        return _Level(first.namespace, first.mode) if first else None


def compile_istio(
    graph: Graph, sources: IstioSources, edges: EdgePods, settings: MeshSettings
) -> IstioCollections:
    """Adds the collections to a graph. Authorizations are keyed `<namespace>/<name>`."""
    compiled = graph.derive(
        "compiled policies",
        sources.authorization_policies,
        lambda context, given: authorization(given, settings),
        on_failure=lambda context, given: closed_authorization(given, settings),
    )
    selecting = graph.derive("policy selectors", compiled, lambda context, policy: _selecting(policy))
    selectors = Selectors(graph, selecting)
    peers = graph.derive(
        "peer policies",
        sources.peer_authentications,
        lambda context, given: peer_policy(given, settings),
    )
    levels = _Levels(graph, peers, settings)

    def converted(context: Context, policy: PeerPolicy) -> Mapping[str, Authorization]:
        """istiod sends the static policy as soon as any PeerAuthentication exists; so do we."""
        found = {static_strict_key(settings): static_strict(settings)}
        if policy.selector and policy.namespace != settings.root_namespace:
            own = own_authorization(policy, levels.inherited(context, policy.namespace))
            if own is not None:
                found[own.key] = own
        return found

    def attach(context: Context, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        scopes = dict.fromkeys((namespace, settings.root_namespace))
        names = [policy.key for scope in scopes for policy in selectors.selecting(context, scope, labels)]
        chosen = oldest(levels.selecting(context, namespace, labels))
        mutual = policy_name(chosen, levels.inherited(context, namespace), settings)
        return tuple(sorted([*names, mutual] if mutual else names))

    from_policies = graph.derive(
        "authorization policies",
        compiled,
        lambda context, policy: policy.authorization,
        key=lambda made: made.key,
    )
    from_peers = graph.derive_many("converted peer policies", peers, converted)
    sent: list[Collection[Authorization]] = [from_policies, from_peers]

    def about_policy(context: Context, given: AuthorizationPolicy) -> Findings | None:
        policy = context.get(compiled, given.metadata.key)
        selector = given.spec.selector
        findings = policy.findings if policy is not None else ()
        if selector is not None and edges.chosen(context, given.metadata.namespace, selector.match_labels):
            # It is meant for gateways, which see requests.
            findings = tuple(each for each in findings if each.code not in _OF_REQUESTS)
        return findings or None

    about_policies = graph.derive(
        "policy findings", sources.authorization_policies, about_policy, key=_object
    )
    about_peers = graph.derive(
        "peer findings", peers, lambda context, policy: _peer_findings(context, policy, levels), key=_object
    )
    requests = compile_requests(
        graph, sources.authorization_policies, sources.request_authentications, edges, settings
    )
    about_telemetry, told = _compile_telemetry(graph, sources, settings)
    said: list[Collection[Findings]] = [about_policies, requests.findings, about_peers, about_telemetry]
    return IstioCollections(
        authorizations=graph.join("authorizations", sent),
        tokens=requests.tokens,
        telemetry=told,
        findings=graph.join("findings", said),
        attach=attach,
        requests=requests.policies,
    )


def _compile_telemetry(
    graph: Graph, sources: IstioSources, settings: MeshSettings
) -> tuple[Collection[Findings], Collection[TelemetryPolicy]]:
    """What is wrong with Telemetry objects, and what they and the mesh's settings (key "") have told of requests."""
    compiled: Collection[CompiledTelemetry] = graph.derive(
        "compiled telemetry", sources.telemetries, lambda _, given: telemetry(given, settings)
    )
    default = graph.source("what is told by default", TelemetryPolicy)
    if settings.logs.default or settings.tracing.default is not None:
        default.put("", default_telemetry(settings))
    policies = graph.derive("what is told of requests", compiled, lambda _, each: each.policy)
    findings = graph.derive(
        "findings of telemetry", compiled, lambda _, each: each.findings or None, key=_object
    )
    return findings, graph.join("all that is told of requests", [default, policies])


def _selecting(policy: CompiledPolicy) -> _Selecting | None:
    made = policy.authorization
    if made is None or not policy.selector:
        return None
    return _Selecting(made.key, made.namespace, policy.selector)


def _peer_findings(context: Context, policy: PeerPolicy, levels: _Levels) -> Findings | None:
    """What reading it found, and whether an older one of its level hides it."""
    findings = policy.findings
    if not policy.selector:
        first = levels.first(context, policy.namespace)
        if first is not None and first.origin != policy.origin:
            hidden = f"{first.origin} is older and counts instead"
            findings = (*findings, Finding("AMB0223", Level.WARNING, policy.origin, "", hidden))
    return findings or None


def _object(findings: Findings) -> str:
    return str(findings[0].origin)
