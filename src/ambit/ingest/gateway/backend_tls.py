"""BackendTLSPolicy (Gateway API v1.6): which ports of which services are called with TLS, and whom to trust there.

- It is for Services and ServiceEntries of its own namespace. One for a port (`sectionName`) goes before one for all of
  them; of two for the same the older counts, then its name (GEP-713), and the other says `Conflicted`.
- `wellKnownCACertificates: System` trusts the public authorities that the proxy's image has.
- Who has no root that could be trusted sends nothing: never plain text where TLS was asked for.
- With `subjectAltNames` the server's certificate must say one of these; the hostname is then asked for only.
- Everybody who may call a service is sent its roots, nodes of other teams, too: MOST_ROOTS for one policy, and
  MOST_IN_NAMESPACE for all of a namespace, each as often as it has targets; the older ones go first.
- A policy says what became of it for each Gateway through which its services are called: their waypoints, and gateways
  with routes to them.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from ambit.core.names import SYSTEM_ROOTS
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.bounds import beyond
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.gateway.backend_targets import Ancestors, is_target, object_of, target_of
from ambit.ingest.gateway.certificates import BadReference, roots_of
from ambit.ingest.gateway.conditions import ACCEPTED, CONFLICTED, RESOLVED, no, version, yes
from ambit.model.backend_tls import BackendTls
from ambit.model.service import Service
from ambit.model.status import Condition, Status
from ambit.objects.backend_policies import BackendTLSPolicy, Validation
from ambit.objects.kube import ConfigMap, Namespace
from ambit.objects.kube import Service as KubeService
from ambit.objects.networking import ServiceEntry

KIND = "BackendTLSPolicy"
MOST_ROOTS = 256 * 1024
"""Bytes of PEM: the authorities of a browser are 220 KiB."""
MOST_IN_NAMESPACE = 4 * 1024 * 1024
"""Bytes that one namespace may have every node carry."""
_ANY = ""
_SYSTEM = "System"


class CompiledPolicy(msgspec.Struct, frozen=True):
    """`targets` are objects (`ServiceEntry <namespace>/<name>`) with the name of a port, or an empty one."""

    namespace: str
    age: tuple[str, str, str]
    targets: tuple[tuple[str, str], ...]
    tls: BackendTls
    wrong: tuple[BadReference, ...]
    refused: str = ""
    """Why it cannot be carried out, beside its references."""

    @property
    def weight(self) -> int:
        """Bytes that it has others carry."""
        return len(self.tls.roots.encode()) * max(1, len(self.targets))


class PolicySources(msgspec.Struct, frozen=True):
    namespaces: Collection[Namespace]
    policies: Collection[BackendTLSPolicy]
    config_maps: Collection[ConfigMap]
    services: Collection[KubeService]
    entries: Collection[ServiceEntry]


class BackendPolicies:
    """What policies make of services."""

    def __init__(self, graph: Graph, sources: PolicySources) -> None:
        self._graph = graph
        self._sources = sources
        written = graph.derive(
            "backend tls policies as they are written",
            sources.policies,
            lambda context, given: _compiled(given, lambda key: context.get(sources.config_maps, key)),
        )
        by_namespace = written.index(lambda each: [each.namespace])
        too_much = graph.derive(
            "backend tls policies with too much",
            sources.namespaces,
            lambda context, given: _too_much(context.lookup(by_namespace, given.metadata.name)) or None,
        )

        def within_bounds(context: Context, given: CompiledPolicy) -> CompiledPolicy:
            over = context.get(too_much, given.namespace)
            return _refused(given, _TOO_MUCH) if over is not None and given.age in over else given

        self._compiled = graph.derive("backend tls policies", written, within_bounds)
        self._by_target = self._compiled.index(lambda each: [name for name, _ in each.targets])

    def service(self, context: Context, given: Service) -> Service:
        """The service with the TLS that its ports are to be called with."""
        name = object_of(given)
        found = context.lookup(self._by_target, name)
        if not found:
            return given
        return msgspec.structs.replace(given, backend_tls=_by_port(name, found, self._ports(context, given)))

    def _ports(self, context: Context, given: Service) -> dict[str, int]:
        """The ports of a service, by their names."""
        key = f"{given.namespace}/{given.name}"
        if given.is_kubernetes:
            object_ = context.get(self._sources.services, key)
            return {each.name: each.port for each in object_.spec.ports or ()} if object_ is not None else {}
        entry = context.get(self._sources.entries, key)
        return {each.name: each.number for each in entry.spec.ports} if entry is not None else {}

    def statuses(
        self, services: Collection[Service], routes: Iterable[Collection[CompiledRoute]]
    ) -> Collection[Status]:
        """What is said of each policy; `services` are the finished ones."""
        ancestors = Ancestors(services, routes)

        def status(context: Context, given: BackendTLSPolicy) -> Status | None:
            compiled = context.get(self._compiled, given.metadata.key)
            if compiled is None:
                return None
            conditions = _conditions(compiled, self._losses(context, compiled))
            return ancestors.status(
                context, version(given.metadata, KIND), [name for name, _ in compiled.targets], conditions
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
                for each in context.lookup(self._by_target, name)
            )
        ]


_TOO_MUCH = (
    "validation.caCertificateRefs: policies of this namespace have more than "
    f"{MOST_IN_NAMESPACE // 1024**2} MiB of roots, each counted for each of its targets: name fewer roots, or targets"
)


def _too_much(policies: Iterable[CompiledPolicy]) -> frozenset[tuple[str, str, str]]:
    """The ages of those that are more than a namespace may have."""
    return beyond(MOST_IN_NAMESPACE, sorted((each.age, each.weight) for each in policies))


def _refused(given: CompiledPolicy, why: str) -> CompiledPolicy:
    nobody = msgspec.structs.replace(given.tls, roots="", roots_file="")
    return msgspec.structs.replace(given, tls=nobody, refused=why)


def _compiled(given: BackendTLSPolicy, known: Callable[[str], ConfigMap | None]) -> CompiledPolicy:
    meta, validation = given.metadata, given.spec.validation
    roots, wrong = roots_of(validation.ca_certificate_refs, meta.namespace, known)
    refused = _refusal(validation)
    if not refused and (size := len(roots.encode())) > MOST_ROOTS:
        refused = (
            f"validation.caCertificateRefs: they hold {size // 1024} KiB, and one policy may have "
            f"{MOST_ROOTS // 1024}: leave out roots that its servers do not need"
        )
    names = tuple(each.hostname for each in validation.subject_alt_names if each.type == "Hostname")
    uris = tuple(each.uri for each in validation.subject_alt_names if each.type == "URI")
    if not validation.subject_alt_names:
        names = (validation.hostname,)
    return CompiledPolicy(
        meta.namespace,
        meta.age,
        tuple(
            dict.fromkeys(
                (target_of(each, meta.namespace), each.section_name)
                for each in given.spec.target_refs
                if is_target(each)
            )
        ),
        BackendTls(
            validation.hostname,
            "" if refused else roots,
            names,
            uris,
            SYSTEM_ROOTS if validation.well_known and not refused else "",
        ),
        wrong,
        refused,
    )


def _refusal(given: Validation) -> str:
    if given.well_known and given.well_known != _SYSTEM:
        return f"validation.wellKnownCACertificates: {given.well_known!r} is not known here: name a ConfigMap"
    if given.well_known and given.ca_certificate_refs:
        return "validation: of caCertificateRefs and wellKnownCACertificates one is given"
    if not given.hostname:
        return "validation.hostname: it is empty"
    for each in given.subject_alt_names:
        value = {"Hostname": each.hostname, "URI": each.uri}.get(each.type)
        if not value:
            return f"validation.subjectAltNames: {each.type!r} without a value"
    return ""


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


def _conditions(compiled: CompiledPolicy, losses: list[str]) -> tuple[Condition, ...]:
    text = "; ".join(each.text for each in compiled.wrong)
    resolved = no(RESOLVED, compiled.wrong[0].reason, text) if compiled.wrong else yes(RESOLVED)
    if losses:
        accepted = no(ACCEPTED, CONFLICTED, f"an older policy is for {', '.join(losses)}")
    elif compiled.refused:
        accepted = no(ACCEPTED, "Invalid", f"{compiled.refused} (nothing is sent)")
    elif not compiled.tls.trusts:
        why = text or "validation.caCertificateRefs: there is none"
        accepted = no(ACCEPTED, "NoValidCACertificate", f"{why} (nothing is sent)")
    else:
        accepted = yes(ACCEPTED)
    return accepted, resolved
