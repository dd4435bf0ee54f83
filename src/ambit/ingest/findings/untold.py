"""Collectors of spans and access logs that nobody can reach: their Service, or its port, does not exist.

Proxies go on without them, so nothing of it is seen in traffic. It is said on the Telemetry that names the provider, or
on the mesh's settings where these send something without any.
"""

from collections.abc import Iterator

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.core.names import MESH_CONFIGMAP
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.istio.telemetry import KIND
from ambit.ingest.settings import MeshSettings
from ambit.model.provider import ProviderService
from ambit.model.service import Service
from ambit.model.telemetry import TelemetryPolicy

CODE = "AMB0244"


def untold(
    graph: Graph,
    policies: Collection[TelemetryPolicy],
    services: Collection[Service],
    settings: MeshSettings,
) -> Collection[tuple[Finding, ...]]:
    """By the text of the object that says it, and `(collectors)`."""

    def findings(context: Context, given: TelemetryPolicy) -> tuple[Finding, ...] | None:
        namespace, _, name = given.key.partition("/")
        origin = (
            ObjectRef(KIND, namespace, name)
            if name
            else ObjectRef("ConfigMap", settings.system_namespace, MESH_CONFIGMAP)
        )
        found = []
        for where, provider, service in dict.fromkeys(_collectors(given)):
            problem = _problem(context.get(services, service.key), service)
            if problem:
                what = "spans" if where == "tracing" else "records of requests"
                text = f"provider {provider!r} of extensionProviders (the mesh's settings): {problem}; {what} are lost"
                path = f"spec.{where}" if name else f"defaultProviders.{where}"
                found.append(Finding(CODE, Level.WARNING, origin, path, text))
        return tuple(found) or None

    return graph.derive(
        "collectors that are not there", policies, findings, key=lambda made: key_of(made[0].origin)
    )


def key_of(origin: ObjectRef) -> str:
    """Of the findings about an object."""
    return f"{origin} (collectors)"


def _collectors(given: TelemetryPolicy) -> Iterator[tuple[str, str, ProviderService]]:
    """What is sent, and whom to: the provider's name, and its service."""
    for traced in given.tracing:
        if traced.tracer is not None and not traced.disabled:
            yield "tracing", traced.tracer.name, traced.tracer.service
    for rule in given.logs:
        for printer in rule.printers:
            if printer.to is not None and not rule.disabled:
                yield "accessLogging", printer.name, printer.to.service


def _problem(found: Service | None, wanted: ProviderService) -> str:
    if found is None:
        return f"there is no service {wanted}"
    if not any(each.service == wanted.port for each in found.ports):
        return f"service {wanted} has no port {wanted.port}"
    return ""
