"""Telemetry as rules about what L7 proxies tell of requests (Istio: `Telemetry`).

- In the root namespace without targets it is for the mesh, else without targets for the waypoints and gateways of its
  namespace; with `targetRefs` for those of its targets. A selector is heeded by nobody, as by Istio's waypoints.
- What cannot be carried out is said, and an entry with such a part does nothing: it would print other requests than
  those that were meant.
"""

import msgspec

from ambit.core.finding import Finding, Level
from ambit.ingest.istio.log_filter import Unreadable, check
from ambit.ingest.istio.metrics import metrics_rules
from ambit.ingest.istio.target_refs import targets_of
from ambit.ingest.istio.tracing import tracing_rule
from ambit.ingest.istio.values import Report
from ambit.ingest.settings import MeshSettings
from ambit.model import telemetry as model
from ambit.model.telemetry import LogRule, Printer, TelemetryPolicy
from ambit.objects.telemetry import AccessLogging, Telemetry

KIND = "Telemetry"


class CompiledTelemetry(msgspec.Struct, frozen=True):
    """What becomes of one object."""

    policy: TelemetryPolicy | None
    findings: tuple[Finding, ...] = ()


def telemetry(given: Telemetry, settings: MeshSettings) -> CompiledTelemetry:
    """Its rules, or none for one that is for nobody."""
    report = Report(given.metadata.reference(KIND))
    spec, namespace = given.spec, given.metadata.namespace
    if spec.selector is not None and spec.selector.match_labels:
        text = "waypoints and gateways heed no selector: name a Service or Gateway in targetRefs"
        report.say("AMB0240", Level.WARNING, "spec.selector", text)
        return CompiledTelemetry(None, tuple(report.findings))
    named = bool(spec.target_ref or spec.target_refs)
    targets = targets_of(spec.target_ref, spec.target_refs, namespace, settings.root_namespace, report)
    rules = [
        _rule(each, f"spec.accessLogging[{i}]", settings, report)
        for i, each in enumerate(spec.access_logging)
    ]
    traced = [
        tracing_rule(each, f"spec.tracing[{i}]", settings, report) for i, each in enumerate(spec.tracing)
    ]
    counted = [
        rule
        for i, each in enumerate(spec.metrics)
        for rule in metrics_rules(each, f"spec.metrics[{i}]", report)
    ]
    level = model.Level.TARGET if named else model.Level.NAMESPACE
    if not named and namespace == settings.root_namespace:
        level = model.Level.MESH
    policy = TelemetryPolicy(
        given.metadata.key,
        level,
        tuple(each for each in rules if each is not None),
        namespace,
        targets,
        given.metadata.creation_timestamp or "9999",
        tuple(each for each in traced if each is not None),
        tuple(counted),
    )
    is_for_somebody = (policy.logs or policy.tracing or policy.metrics) and (targets or not named)
    return CompiledTelemetry(policy if is_for_somebody else None, tuple(report.findings))


def default_telemetry(settings: MeshSettings) -> TelemetryPolicy:
    """What holds where no object says anything."""
    known = (settings.logs.printer(name) for name in settings.logs.default)
    printers = tuple(each for each in known if each is not None)
    logs = (LogRule(printers),) if printers else ()
    traced = (settings.tracing.default,) if settings.tracing.default is not None else ()
    return TelemetryPolicy("", model.Level.DEFAULT, logs, tracing=traced)


def _rule(given: AccessLogging, path: str, settings: MeshSettings, report: Report) -> LogRule | None:
    printers: list[Printer] = []
    for i, provider in enumerate(given.providers):
        found = settings.logs.printer(provider.name)
        if found is None:
            known = ", ".join(each.name for each in settings.logs.printers)
            text = f"{provider.name!r} takes no access logs; these do: {known}. The entry does nothing"
            report.say("AMB0241", Level.ERROR, f"{path}.providers[{i}]", text)
            return None
        printers.append(found)
    try:
        if given.filter.expression:
            check(given.filter.expression)
    except Unreadable as problem:
        text = f"{problem}. The entry does nothing"
        report.say("AMB0241", Level.ERROR, f"{path}.filter.expression", text)
        return None
    mode = given.match.mode
    return LogRule(
        tuple(printers),
        given.filter.expression,
        bool(given.disabled),
        at_waypoints=mode != "CLIENT",
        at_gateways=mode != "SERVER",
    )
