"""Entries of a Telemetry object about metrics as rules (Istio: `Metrics`, `MetricsOverrides`)."""

import re
from collections.abc import Iterator

from ambit.core.finding import Level
from ambit.ingest.istio.log_filter import Unreadable, check
from ambit.ingest.istio.values import Report
from ambit.model.metrics import ALL, METRICS, OF_CONNECTIONS, MetricsRule
from ambit.objects.telemetry import Metrics, MetricsOverride, TagOverride

PROVIDER = "prometheus"
_NOT_CARRIED_OUT = "AMB0242"
_ALL = "ALL_METRICS"
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AS_TEXT = re.compile(r"string\((.*)\)")
"""What Envoy cannot call: it writes numbers as texts by itself."""
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
            labels: dict[str, str | None] = {}
            expressions: dict[str, str] = {}
            for name, tag in _tags(override, where, report):
                if tag.operation == "REMOVE":
                    labels[name] = None
                elif (value := _text(tag)) is not None:
                    labels[name] = value
                elif found := _expression(tag, f"{where}.tagOverrides.{name}", metrics, report):
                    expressions[name] = found
            yield MetricsRule(
                metrics,
                override.disabled,
                tuple(sorted(labels.items())),
                at_waypoints=mode != "CLIENT",
                at_gateways=mode != "SERVER",
                expressions=tuple(sorted(expressions.items())),
            )


def _metrics(given: MetricsOverride, path: str, report: Report) -> tuple[str, ...]:
    match = given.match
    if not match.custom_metric and match.metric in ("", _ALL):
        return ALL
    named = match.custom_metric or match.metric
    if not match.custom_metric and named in METRICS:
        return (METRICS[named],)
    text = f"waypoints and gateways have no {named}; they have {', '.join(METRICS)}"
    report.say(_NOT_CARRIED_OUT, Level.WARNING, f"{path}.match", text)
    return ()


def _tags(given: MetricsOverride, path: str, report: Report) -> Iterator[tuple[str, TagOverride]]:
    for name, tag in given.tag_overrides.items():
        if _LABEL.fullmatch(name) and name != "le":
            yield name, tag
        else:
            text = f"{name!r} cannot be a label. It stays as it is"
            report.say(_NOT_CARRIED_OUT, Level.WARNING, f"{path}.tagOverrides.{name}", text)


def _text(tag: TagOverride) -> str | None:
    found = _TEXT.fullmatch(tag.value.strip())
    return (found[1] or found[2] or "") if found else None


def _expression(tag: TagOverride, path: str, metrics: tuple[str, ...], report: Report) -> str:
    """One that Envoy can read, as it is written in a format; empty, and said why, for another."""
    text = re.sub(r"[\r\n\t]+", " ", tag.value.strip())
    if (whole := _AS_TEXT.fullmatch(text)) is not None:
        text = whole[1].strip()
    problem = ""
    if set(metrics) <= set(OF_CONNECTIONS.values()):
        problem = "of connections no expression has a value; write a text in quotes"
    elif "%" in text:
        problem = "an expression cannot have the sign %"
    else:
        try:
            check(text)
        except Unreadable as unreadable:
            problem = f"{tag.value!r} is neither a text in quotes nor an expression that proxies can read: {unreadable}"
    if problem:
        report.say(_NOT_CARRIED_OUT, Level.WARNING, path, f"{problem}. The label stays as it is")
        return ""
    return text
