"""What a proxy tells of requests, by all that is said about it, and whom."""

from collections.abc import Iterable

from ambit.envoy.http.telling import Told
from ambit.envoy.logs.log_services import SentLog
from ambit.model.proxy import Proxy
from ambit.model.service import Service
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.model.workload import Workload
from ambit.plan.backends import Provider, provider, service_name
from ambit.plan.telemetry.metrics import expressions_of
from ambit.plan.telemetry.request_logs import logs_of
from ambit.plan.telemetry.tracing import collector, spans_of
from ambit.plan.values import NodeSettings


def told_of(
    policies: Iterable[TelemetryPolicy],
    proxy: Proxy,
    settings: NodeSettings,
    subject: Service | Workload | None = None,
) -> Told:
    """Whatever a proxy tells of requests to `subject`."""
    logs = logs_of(policies, proxy, subject)
    return Told(
        tuple(each for each in logs if each.printer.to is None),
        tuple(
            SentLog(each, to, provider(to.service).cluster, service_name(proxy))
            for each in logs
            if (to := each.printer.to) is not None
        ),
        spans_of(policies, proxy, settings, subject),
        expressions_of(policies, proxy, subject),
    )


def collectors(policies: Iterable[TelemetryPolicy], proxy: Proxy) -> frozenset[Provider]:
    """Whom a proxy may have to tell of any request: what is not used in the end is a cluster without connections."""
    near = _near(policies, proxy)
    sent = (each.to for policy in near for rule in policy.logs for each in rule.printers)
    return tracers(near, proxy).union(provider(each.service) for each in sent if each is not None)


def tracers(policies: Iterable[TelemetryPolicy], proxy: Proxy) -> frozenset[Provider]:
    """Those who may have to be told of spans."""
    given = (rule.tracer for policy in _near(policies, proxy) for rule in policy.tracing)
    return frozenset(collector(each) for each in given if each is not None)


def _near(policies: Iterable[TelemetryPolicy], proxy: Proxy) -> list[TelemetryPolicy]:
    own = proxy.identity.namespace
    return [each for each in policies if each.level is not Level.NAMESPACE or each.namespace == own]
