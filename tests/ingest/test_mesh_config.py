"""The file of the mesh's settings: what it comes to, and that nothing in it is passed over."""

import pytest

from ambit.core.errors import BadInput
from ambit.core.selector import Requirement, Selector
from ambit.ingest.mesh_settings.mesh_config import MeshConfig, mesh_config
from ambit.ingest.settings import MeshSettings
from ambit.ingest.visibility import EntryVisibility, VisibilityPolicy
from ambit.model.service import ServerNames, Visibility
from ambit.model.telemetry import LogFormat, MeshLogs, Printer

WHOLE = """
serviceEntryVisibility:
  defaultVisibility: NONE
  applyToSidecars: true
  policies:
  - visibility: NAMESPACE
    matchingRules:
    - namespaceSelector: {matchLabels: {team: a}}
    - namespaceSelector: {matchExpressions: [{key: tier, operator: In, values: [x, y]}]}
  - {}
"""


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "serviceEntryVisibility:\n"])
def test_a_file_may_say_nothing(text: str) -> None:
    assert mesh_config(text, "f") == MeshConfig()


def test_visibility_has_istios_fields() -> None:
    first = (Selector({"team": "a"}), Selector({}, (Requirement("tier", "In", ("x", "y")),)))
    policies = (VisibilityPolicy(Visibility.NAMESPACE, first), VisibilityPolicy(Visibility.PUBLIC))
    assert mesh_config(WHOLE, "f") == MeshConfig(
        EntryVisibility(None, policies),
        ("serviceEntryVisibility.applyToSidecars: there are no sidecars",),
    )


def test_what_is_not_said_is_public() -> None:
    assert mesh_config("serviceEntryVisibility: {}", "f").entry_visibility == EntryVisibility(
        Visibility.PUBLIC
    )


def test_what_proxies_print() -> None:
    assert mesh_config("", "f").logs == MeshLogs()
    text = mesh_config("{accessLogFile: /dev/stdout, accessLogFormat: '%REQ(X?:Y):5% 5%%'}", "f").logs
    assert text == MeshLogs((Printer(format=LogFormat("%REQ(X?:Y):5% 5%%")),), ("envoy",))
    json = mesh_config('{accessLogEncoding: JSON, accessLogFormat: \'{"a": "%PROTOCOL%"}\'}', "f").logs
    assert json == MeshLogs((Printer(format=LogFormat("", (("a", "%PROTOCOL%"),), is_json=True)),), ())


def test_how_many_proxies_are_in_front_of_gateways() -> None:
    found = mesh_config("defaultConfig: {gatewayTopology: {numTrustedProxies: 2}}", "f")
    assert found.applied(MeshSettings()).trusted_proxies == 2


def within(policy: str) -> str:
    return f"serviceEntryVisibility: {{policies: [{policy}]}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("serviceEntryVisibilty: {}", "serviceEntryVisibilty"),
        ("defaultConfig: {gatewayTopology: {numTrustedProxies: -1}}", "numTrustedProxies"),
        ("defaultConfig: {gatewayTopology: {proxyProtocol: {}}}", "proxyProtocol"),
        ("accessLogService: x", "accessLogService"),
        ("accessLogFile: /var/log/x", "/dev/stdout"),
        ("accessLogFormat: '%REQ(:METHOD)% 100%'", "'%'"),
        ("accessLogFormat: '%SECRET%'", "'%SECRET%'"),
        ("accessLogFormat: '%REQ%'", "'%REQ%'"),
        ("accessLogFormat: '%PROTOCOL(x)%'", "PROTOCOL"),
        ("accessLogFormat: '%PROTOCOL:3%'", "PROTOCOL"),
        ("accessLogEncoding: XML", "accessLogEncoding"),
        ("{accessLogEncoding: JSON, accessLogFormat: '%PROTOCOL%'}", "JSON object"),
        ('{accessLogEncoding: JSON, accessLogFormat: \'{"a": "%NO%"}\'}', "'%NO%'"),
        ("trustDomain: example.org", "--trust-domain"),
        ("rootNamespace: x", "--root-namespace"),
        ("- x", "one mapping"),
        ("a: {}\n---\nb: {}", "one mapping"),
        ("a: [", "no YAML"),
        ("serviceEntryVisibility: {}\nserviceEntryVisibility: {}", "serviceEntryVisibility is given twice"),
        ("serviceEntryVisibility: {defaultVisibility: Public}", "serviceEntryVisibility.defaultVisibility"),
        ("serviceEntryVisibility: {default: NONE}", "`default`"),
        (within("{visibility: [NONE]}"), "serviceEntryVisibility.policies[0].visibility"),
        (within("{matchingRules: [{}]}"), "`namespaceSelector`"),
        (within("{matchingRules: [{hostnameSuffix: x}]}"), "hostnameSuffix"),
        (within("{matchingRules: [{namespaceSelector: null}]}"), "namespaceSelector"),
        (within("{matchingRules: [{namespaceSelector: {matchLabel: {a: b}}}]}"), "`matchLabel`"),
        (within("{matchingRules: [{namespaceSelector: {matchLabels: {a: true}}}]}"), "matchLabels"),
        *(
            (within(f"{{matchingRules: [{{namespaceSelector: {{matchExpressions: [{one}]}}}}]}}"), said)
            for one, said in (
                (
                    "{key: a, operator: In}",
                    "policies[0].matchingRules[0].namespaceSelector.matchExpressions[0]",
                ),
                ("{key: a, operator: Exists, values: [b]}", "Exists with values"),
                ("{key: a, operator: in, values: [b]}", "operator"),
                ("{key: a, operator: In, value: [b]}", "`value`"),
            )
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        mesh_config(text, "mesh.yaml")
    assert raised.value.message.startswith("mesh.yaml")
    assert said in raised.value.message + raised.value.hint


def test_wildcards_by_server_name_are_off_unless_they_are_asked_for() -> None:
    assert mesh_config("", "f").server_names is None
    assert mesh_config("enableWildcardHostServiceEntriesForTls: false", "f").server_names is None
    assert mesh_config("enableWildcardHostServiceEntriesForTls: true", "f").server_names == ServerNames()
    text = "enableWildcardHostServiceEntriesForTls: true\nwildcardHostRanges: [10.20.0.0/16]"
    found = mesh_config(text, "f").applied(MeshSettings()).server_names
    assert found == ServerNames(("10.20.0.0/16",))


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ("[10.20.0.1/16]", "has host bits set"),
        ("[fd00::/8]", "wildcardHostRanges"),
        ("[127.0.0.0/8]", "the machine itself"),
        ("[0.0.0.0/0]", "the machine itself"),
        ("[169.254.169.254/32]", "the machine itself"),
    ],
)
def test_ranges_of_wildcards_are_not_the_machines_own(ranges: str, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        mesh_config(f"enableWildcardHostServiceEntriesForTls: true\nwildcardHostRanges: {ranges}", "f")


def test_ranges_without_the_setting_are_an_error() -> None:
    with pytest.raises(BadInput, match="means nothing without"):
        mesh_config("wildcardHostRanges: [10.20.0.0/16]", "f")
