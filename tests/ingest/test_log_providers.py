"""What the mesh's settings say of providers of access logs."""

import pytest

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.mesh_config import mesh_config
from ambit.model.provider import ProviderService
from ambit.model.telemetry import Entries, LogFormat, LogService, MeshLogs, Printer

PLACE = ProviderService("otel.obs.svc.cluster.local", 4317)
SHORTEST = "{service: otel.obs.svc.cluster.local, port: 4317}"
WHOLE = """
accessLogFile: /dev/stdout
accessLogFormat: "%REQ(:PATH)%"
extensionProviders:
- name: text
  envoyFileAccessLog: {logFormat: {text: "%PROTOCOL%"}}
- name: members
  envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {path: "%REQ(:PATH)%"}}}
- name: usual
  envoyFileAccessLog: {}
- name: otlp
  envoyOtelAls:
    service: otel.obs.svc.cluster.local
    port: 4317
    logName: mine
    logFormat: {text: "%REQ(:PATH)%", labels: {code: "%RESPONSE_CODE%"}}
- name: entries
  envoyHttpAls:
    service: obs/als.example.com
    port: 443
    filterStateObjectsToLog: [ambit.Caller]
    additionalRequestHeadersToLog: [X-Team]
    additionalResponseHeadersToLog: [x-a]
    additionalResponseTrailersToLog: [x-b]
"""


def settings(provider: str, more: str = "") -> MeshLogs:
    return mesh_config(f"extensionProviders: [{{name: logs, {provider}}}]\n{more}", "f").logs


def test_all_fields() -> None:
    own = Printer(format=LogFormat("%REQ(:PATH)%"))
    entries = Entries(("x-team",), ("x-a",), ("x-b",), ("ambit.Caller",))
    to = ProviderService("als.example.com", 443, "obs")
    assert mesh_config(WHOLE, "f").logs == MeshLogs(
        (
            own,
            Printer("text", LogFormat("%PROTOCOL%")),
            Printer("members", LogFormat(members=(("path", "%REQ(:PATH)%"),), is_json=True)),
            Printer("usual"),
            Printer(
                "otlp", LogFormat("%REQ(:PATH)%"), LogService(PLACE, "mine", (("code", "%RESPONSE_CODE%"),))
            ),
            Printer("entries", to=LogService(to, "http_envoy_accesslog", entries=entries)),
        ),
        ("envoy",),
    )


def test_what_holds_by_default() -> None:
    more = "accessLogFile: /dev/stdout\ndefaultProviders: {accessLogging: [logs]}"
    found = settings(f"envoyOtelAls: {SHORTEST}", more)
    assert (found.default, found.printer("logs")) == (
        ("logs",),
        Printer("logs", to=LogService(PLACE, "otel_envoy_accesslog")),
    )


def test_envoys_own_provider_prints_as_the_settings_say() -> None:
    """Unless it has a format of its own."""
    more = 'accessLogFormat: "%REQ(:PATH)%"'
    named = "extensionProviders: [{name: envoy, envoyFileAccessLog: {FORMAT}}]\n" + more
    assert mesh_config(named.replace("FORMAT", ""), "f").logs == MeshLogs(
        (Printer(format=LogFormat("%REQ(:PATH)%")),)
    )
    own = mesh_config(named.replace("FORMAT", "logFormat: {text: '%PROTOCOL%'}"), "f").logs
    assert own == MeshLogs((Printer(format=LogFormat("%PROTOCOL%")),))


@pytest.mark.parametrize(
    ("provider", "more", "said"),
    [
        ("envoyOtelAls: {port: 4317}", "", "service"),
        ("envoyOtelAls: {service: otel.example.com, port: 4317}", "", "does not say whose it is"),
        (f"envoyOtelAls: {SHORTEST[:-1]}, logFormat: {{text: '%NO%'}}}}", "", "logFormat.text: '%NO%'"),
        (f"envoyOtelAls: {SHORTEST[:-1]}, logFormat: {{labels: {{a: 1}}}}}}", "", "labels.a: 1 is no text"),
        (f"envoyOtelAls: {SHORTEST[:-1]}, logFormat: {{labels: {{a: '%'}}}}}}", "", "labels.a: '%'"),
        (
            f"envoyHttpAls: {SHORTEST[:-1]}, additionalRequestHeadersToLog: ['a b']}}",
            "",
            "additionalRequestHeadersToLog[0]",
        ),
        ("envoyFileAccessLog: {path: /var/log/x}", "", "path: '/var/log/x'"),
        ("envoyFileAccessLog: {logFormat: {text: a, labels: {b: c}}}", "", "text and labels"),
        ("envoyFileAccessLog: {omitEmptyValues: true}", "", "omitEmptyValues"),
        (
            f"opentelemetry: {SHORTEST}",
            "defaultProviders: {accessLogging: [logs]}",
            "defaultProviders.accessLogging: logs",
        ),
    ],
)
def test_what_could_mean_something_else_is_refused(provider: str, more: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        settings(provider, more)
    assert said in raised.value.message
