"""Entries of a Telemetry object about metrics as rules (Istio: `Metrics`, `MetricsOverrides`)."""

import re
from collections.abc import Iterator

from ambit.core.finding import Level
from ambit.ingest.istio.values import Report
from ambit.model.metrics import METRICS, MetricsRule
from ambit.objects.telemetry import Metrics, MetricsOverride, TagOverride

PROVIDER = "prometheus"
_NOT_CARRIED_OUT = "AMB0242"
_ALL = "ALL_METRICS"
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r"""'([^'\\\n]*)'|"([^"\\\n]*)\"""")


def metrics_rules(given: Metrics, path: str, report: Report) -> Iterator[MetricsRule]:
    """What of an entry can be carried out; the report says what cannot."""
    names = [each.name for each in given.providers]
    if names and PROVIDER not in names:
        text = f"metrics are for {PROVIDER} alone, not for {', '.join(names)}. The entry does nothing"
        report.say(_NOT_CARRIED_OUT, Level.WARNING, f"{path}.providers", text)
        return
    for i, override in enumerate(given.overrides):
        where = f"{path}.overrides[{i}]"
        metrics = _metrics(override, where, report)
        if metrics:
            mode = override.match.mode
            labels = sorted(_labels(override, where, report))
            yield MetricsRule(
                metrics,
                override.disabled,
                tuple(labels),
                at_waypoints=mode != "CLIENT",
                at_gateways=mode != "SERVER",
            )


def _metrics(given: MetricsOverride, path: str, report: Report) -> tuple[str, ...]:
    match = given.match
    if not match.custom_metric and match.metric in ("", _ALL):
        return tuple(METRICS.values())
    named = match.custom_metric or match.metric
    if not match.custom_metric and named in METRICS:
        return (METRICS[named],)
    text = f"waypoints and gateways have no {named}; those of connections are nodes', which have all labels"
    report.say(_NOT_CARRIED_OUT, Level.WARNING, f"{path}.match", text)
    return ()


def _labels(given: MetricsOverride, path: str, report: Report) -> Iterator[tuple[str, str | None]]:
    for name, tag in given.tag_overrides.items():
        where = f"{path}.tagOverrides.{name}"
        if not _LABEL.fullmatch(name) or name == "le":
            report.say(
                _NOT_CARRIED_OUT, Level.WARNING, where, f"{name!r} cannot be a label. It stays as it is"
            )
        elif tag.operation == "REMOVE":
            yield name, None
        elif (value := _text(tag)) is not None:
            yield name, value
        else:
            text = f"{tag.value!r} is no text in quotes; metrics are counted without other expressions"
            report.say(_NOT_CARRIED_OUT, Level.WARNING, where, f"{text}. The label stays as it is")


def _text(tag: TagOverride) -> str | None:
    found = _TEXT.fullmatch(tag.value.strip())
    return (found[1] or found[2] or "") if found else None
