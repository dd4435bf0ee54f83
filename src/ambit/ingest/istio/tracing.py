"""Entries of a Telemetry object about spans as rules (Istio: `Tracing`)."""

from ambit.core.finding import Level
from ambit.ingest.istio.values import Report
from ambit.ingest.mesh_settings.span_tags import BadTag, span_tags
from ambit.ingest.settings import MeshSettings
from ambit.model.tracing import TracingRule
from ambit.objects.telemetry import Tracing

_UNTOLD = "AMB0243"


def tracing_rule(given: Tracing, path: str, settings: MeshSettings, report: Report) -> TracingRule | None:
    """What an entry comes to; none for one that has a part which cannot be carried out: it would have told others, or
    other things, than was meant."""
    tracer = None
    for provider in given.providers[:1]:
        tracer = settings.tracing.tracer(provider.name)
        if tracer is None:
            known = ", ".join(each.name for each in settings.tracing.tracers) or "none"
            text = f"{provider.name!r} takes no spans; of extensionProviders these do: {known}"
            report.say(_UNTOLD, Level.ERROR, f"{path}.providers[0]", f"{text}. The entry does nothing")
            return None
    if len(given.providers) > 1:
        text = f"spans go to one provider: {given.providers[0].name}"
        report.say(_UNTOLD, Level.WARNING, f"{path}.providers[1]", text)
    try:
        tags = None if given.custom_tags is None else span_tags(given.custom_tags)
    except BadTag as problem:
        text = f"{problem}. The entry does nothing"
        report.say(_UNTOLD, Level.ERROR, f"{path}.customTags.{problem.path}", text)
        return None
    alone = given.disable_context_propagation
    return TracingRule(
        tracer,
        given.random_sampling_percentage,
        given.disable_span_reporting,
        tags,
        given.use_request_id_for_trace_sampling,
        given.enable_istio_tags,
        None if alone is None else not alone,
        at_waypoints=given.match.mode != "CLIENT",
        at_gateways=given.match.mode != "SERVER",
    )
