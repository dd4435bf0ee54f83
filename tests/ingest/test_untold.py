"""Collectors that are not there: `ambit.ingest.findings.untold`."""

from typing import Any

import pytest

from ambit.core.finding import Level
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.provider import ProviderService
from ambit.model.status import ObjectStatus
from ambit.model.telemetry import LogService, MeshLogs, Printer
from ambit.model.tracing import MeshTracing, Tracer, TracingRule
from tests.ingest.build import Given, service
from tests.ingest.test_mesh import change

HOST = "tempo.default.svc.cluster.local"
TEMPO = service("tempo", {"app": "tempo"})
TRACED: dict[str, Any] = {"tracing": [{"providers": [{"name": "spans"}]}]}
LOGGED: dict[str, Any] = {"accessLogging": [{"providers": [{"name": "logs"}]}]}


def telemetry(**spec: Any) -> Given:
    metadata = {"name": "t", "namespace": "shop"}
    return "telemetries.telemetry.istio.io", {"metadata": metadata, "spec": spec}


def mesh(*given: Given, port: int = 80, default: bool = False) -> MeshCompiler:
    """With the providers `spans` and `logs` of one service."""
    place = ProviderService(HOST, port)
    tracer = Tracer("spans", place, 3000)
    tracing = MeshTracing((tracer,), default=TracingRule(tracer)) if default else MeshTracing((tracer,))
    logs = MeshLogs((Printer(), Printer("logs", to=LogService(place, "requests"))))
    made = MeshCompiler(MeshSettings(tracing=tracing, logs=logs))
    made.apply(map(change, given))
    return made


def said(made: MeshCompiler) -> list[tuple[str, str, str]]:
    assert all((each.code, each.level) == ("AMB0244", Level.WARNING) for each in made.findings)
    return [(str(each.origin), each.path, each.text) for each in made.findings]


@pytest.mark.parametrize(
    ("spec", "path", "provider", "lost"),
    [
        (TRACED, "spec.tracing", "spans", "spans"),
        (LOGGED, "spec.accessLogging", "logs", "records of requests"),
    ],
)
def test_it_is_said_until_its_service_is_there(
    spec: dict[str, Any], path: str, provider: str, lost: str
) -> None:
    made = mesh(telemetry(**spec))
    text = (
        f"provider '{provider}' of extensionProviders (the mesh's settings): there is no service {HOST}; "
        f"{lost} are lost"
    )
    assert said(made) == [("Telemetry shop/t", path, text)]
    status = made.statuses["Telemetry shop/t"]
    assert isinstance(status, ObjectStatus)
    (condition,) = status.conditions
    assert (condition.status, condition.reason) == ("True", "PartiallyInvalid")
    assert condition.message == f"AMB0244 {path}: {text}"
    made.apply([change(TEMPO)])
    status = made.statuses["Telemetry shop/t"]
    assert isinstance(status, ObjectStatus) and status.conditions[0].reason == "Accepted"
    assert not made.findings
    made.apply([Change(TEMPO[0], "default/tempo")])
    assert len(said(made)) == 1


def test_a_port_that_it_does_not_have() -> None:
    ((_, _, text),) = said(mesh(telemetry(**TRACED), TEMPO, port=81))
    assert f"service {HOST} has no port 81" in text


def test_what_the_settings_send_by_themselves() -> None:
    ((origin, path, _),) = said(mesh(default=True))
    assert (origin, path) == ("ConfigMap ambit-system/ambit-mesh-config", "defaultProviders.tracing")
    assert not said(mesh(TEMPO, default=True))


def test_nobody_is_missed_whom_nobody_tells() -> None:
    assert not said(mesh())
    off = {"tracing": [{**TRACED["tracing"][0], "disableSpanReporting": True}]}
    assert not said(mesh(telemetry(**off)))
