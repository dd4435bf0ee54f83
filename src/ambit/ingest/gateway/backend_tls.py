"""BackendTLSPolicy (Gateway API v1.6): which ports of which services are called with TLS, and whom to trust there.

- It is for Services of its own namespace. One for a port (`sectionName`) goes before one for all of them; of two for
  the same the older counts, then its name (GEP-713), and the other says `Conflicted`.
- Who has no root that could be trusted sends nothing: never plain text where TLS was asked for.
- With `subjectAltNames` the server's certificate must say one of these; the hostname is then asked for only.
- A policy says what became of it for each Gateway through which its services are called: their waypoints, and gateways
  with routes to them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from ambit.core.names import GATEWAY_CONTROLLER, WAYPOINT_CONTROLLER
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.gateway.certificates import BadReference, roots_of
from ambit.ingest.gateway.conditions import ACCEPTED, CONFLICTED, RESOLVED, no, version, yes
from ambit.ingest.settings import MeshSettings
from ambit.model.backend_tls import BackendTls
from ambit.model.service import Service
from ambit.model.status import Condition, Parent, ParentStatus, PolicyStatus, Status
from ambit.objects.backend_policies import BackendTLSPolicy, PolicyTarget, Validation
from ambit.objects.gateway import GROUP
from ambit.objects.kube import ConfigMap
from ambit.objects.kube import Service as KubeService

KIND = "BackendTLSPolicy"
MOST_ANCESTORS = 16
"""As many as a policy's status can have (GEP-713)."""
_ANY = ""


class CompiledPolicy(msgspec.Struct, frozen=True):
    """`targets` are services (`<namespace>/<name>`) with the name of a port, or an empty one."""

    age: tuple[str, str, str]
    targets: tuple[tuple[str, str], ...]
    tls: BackendTls
    wrong: tuple[BadReference, ...]
    refused: str = ""
    """Why it cannot be carried out, beside its references."""


class PolicySources(msgspec.Struct, frozen=True):
    policies: Collection[BackendTLSPolicy]
    config_maps: Collection[ConfigMap]
    services: Collection[KubeService]


class BackendPolicies:
    """What policies make of services."""

    def __init__(self, graph: Graph, sources: PolicySources, settings: MeshSettings) -> None:
        self._graph = graph
        self._sources = sources
        self._settings = settings
        self._compiled = graph.derive(
            "backend tls policies",
            sources.policies,
            lambda context, given: _compiled(given, lambda key: context.get(sources.config_maps, key)),
        )
        self._by_service = self._compiled.index(lambda each: [name for name, _ in each.targets])

    def service(self, context: Context, given: Service) -> Service:
        """The service with the TLS that its ports are to be called with."""
        if not given.is_kubernetes:
            return given
        name = f"{given.namespace}/{given.name}"
        found = context.lookup(self._by_service, name)
        if not found:
            return given
        object_ = context.get(self._sources.services, name)
        ports = {port.name: port.port for port in object_.spec.ports or ()} if object_ is not None else {}
        return msgspec.structs.replace(given, backend_tls=_by_port(name, found, ports))

    def statuses(
        self, services: Collection[Service], routes: Iterable[Collection[CompiledRoute]]
    ) -> Collection[Status]:
        """What is said of each policy; `services` are the finished ones."""
        called_by = [each.index(_called_at_edge) for each in routes]

        def ancestors_of(context: Context, service: Service) -> Iterator[tuple[Parent, str]]:
            """The Gateways through which a service is called, with their controllers."""
            for each in service.waypoints:
                where = each.gateway
                if where.hostname:
                    name = where.hostname.partition(".")[0]
                    yield Parent(GROUP, "Gateway", name, where.namespace), WAYPOINT_CONTROLLER
            for index in called_by:
                for route in context.lookup(index, service.key):
                    for attachment in route.listeners:
                        namespace, _, name = attachment.gateway.partition("/")
                        yield Parent(GROUP, "Gateway", name, namespace), GATEWAY_CONTROLLER

        def status(context: Context, given: BackendTLSPolicy) -> Status | None:
            compiled = context.get(self._compiled, given.metadata.key)
            if compiled is None:
                return None
            ancestors: dict[tuple[Parent, str], None] = {}
            for name, _ in compiled.targets:
                key = f"{name.partition('/')[0]}/{self._settings.hostname(*reversed(name.split('/')))}"
                service = context.get(services, key)
                if service is not None:
                    ancestors.update(dict.fromkeys(ancestors_of(context, service)))
            conditions = _conditions(compiled, self._losses(context, compiled))
            return PolicyStatus(
                version(given.metadata, KIND),
                tuple(
                    ParentStatus(parent, conditions, controller)
                    for parent, controller in [*ancestors][:MOST_ANCESTORS]
                ),
            )

        return self._graph.derive(
            "statuses of backend tls policies",
            self._sources.policies,
            status,
            key=lambda status: str(status.version.origin),
        )

    def _losses(self, context: Context, compiled: CompiledPolicy) -> list[str]:
        """Targets that an older policy has."""
        return [
            f"{name}{f', port {section}' if section else ''}"
            for name, section in compiled.targets
            if any(
                each.age < compiled.age and (name, section) in each.targets
                for each in context.lookup(self._by_service, name)
            )
        ]


def _compiled(given: BackendTLSPolicy, known: Callable[[str], ConfigMap | None]) -> CompiledPolicy:
    meta, validation = given.metadata, given.spec.validation
    roots, wrong = roots_of(validation.ca_certificate_refs, meta.namespace, known)
    refused = _refusal(validation)
    names = tuple(each.hostname for each in validation.subject_alt_names if each.type == "Hostname")
    uris = tuple(each.uri for each in validation.subject_alt_names if each.type == "URI")
    if not validation.subject_alt_names:
        names = (validation.hostname,)
    return CompiledPolicy(
        meta.age,
        tuple(
            dict.fromkeys(_target(each, meta.namespace) for each in given.spec.target_refs if _is_ours(each))
        ),
        BackendTls(validation.hostname, "" if refused else roots, names, uris),
        wrong,
        refused,
    )


def _refusal(given: Validation) -> str:
    if given.well_known:
        return f"validation.wellKnownCACertificates: {given.well_known!r} is not known here: name a ConfigMap"
    if not given.hostname:
        return "validation.hostname: it is empty"
    for each in given.subject_alt_names:
        value = {"Hostname": each.hostname, "URI": each.uri}.get(each.type)
        if not value:
            return f"validation.subjectAltNames: {each.type!r} without a value"
    return ""


def _is_ours(given: PolicyTarget) -> bool:
    return (given.group, given.kind) == ("", "Service")


def _target(given: PolicyTarget, namespace: str) -> tuple[str, str]:
    return f"{namespace}/{given.name}", given.section_name


def _by_port(
    name: str, policies: Iterable[CompiledPolicy], ports: Mapping[str, int]
) -> dict[int, BackendTls]:
    best: dict[str, CompiledPolicy] = {}
    for each in sorted(policies, key=lambda each: each.age):
        for target, section in each.targets:
            if target == name:
                best.setdefault(section, each)
    found: dict[int, BackendTls] = {}
    for section, port in sorted(ports.items()):
        policy = best.get(section) or best.get(_ANY)
        if policy is not None:
            found[port] = policy.tls
    return found


def _called_at_edge(route: CompiledRoute) -> set[str]:
    """Services that a route leads to from listeners of gateways."""
    found: set[str] = set()
    for attachment in route.listeners:
        for each in attachment.entries:
            found.update(backend.service for backend in each.entry.action.backends)
        for stream in attachment.streams:
            found.update(backend.service for backend in stream.backends)
    return found


def _conditions(compiled: CompiledPolicy, losses: list[str]) -> tuple[Condition, ...]:
    text = "; ".join(each.text for each in compiled.wrong)
    resolved = no(RESOLVED, compiled.wrong[0].reason, text) if compiled.wrong else yes(RESOLVED)
    if losses:
        accepted = no(ACCEPTED, CONFLICTED, f"an older policy is for Service {', '.join(losses)}")
    elif compiled.refused:
        accepted = no(ACCEPTED, "Invalid", f"{compiled.refused} (nothing is sent)")
    elif not compiled.tls.roots:
        why = text or "validation.caCertificateRefs: there is none"
        accepted = no(ACCEPTED, "NoValidCACertificate", f"{why} (nothing is sent)")
    else:
        accepted = yes(ACCEPTED)
    return accepted, resolved
