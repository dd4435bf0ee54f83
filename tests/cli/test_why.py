"""`ambit why`: the answer as people and programs get it, and what records say to it."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from click.testing import CliRunner, Result

from ambit.cli.commands import why as module
from ambit.cli.commands.why import command
from ambit.cli.confirmation import AGREES, DIFFERS, NONE, Confirmation, confirm
from ambit.cli.live_objects import compile_cluster, mesh_settings, settings_of
from ambit.cli.render.answer import _miss, answer_lines
from ambit.core.errors import BadInput
from ambit.ingest.patch_limits import PatchLimits
from ambit.ingest.settings import MeshSettings
from ambit.ingest.visibility import EntryVisibility
from ambit.insight.manifests import Compiled, compile_objects
from ambit.insight.ruling import ALLOWED, DENIED, Ruling
from ambit.insight.why import Answer
from ambit.kube.client import Client
from ambit.kube.credentials import Fixed
from ambit.kube.http import Transport
from ambit.kube.resource import Resource
from ambit.model.service import Visibility
from ambit.policy.nearest import Miss

GOLDEN = Path(__file__).parents[1] / "golden"
SCOPES = str(GOLDEN / "compile" / "policy_scopes" / "in.yaml")
QUESTIONS = (("db", "web:8080"), ("10.1.1.1", "web:8080"), ("10.1.1.1", "db:80"), ("db", "192.0.2.1:443"))
RULING = Ruling(DENIED, "denied by rule", "default/web", "10.244.1.2", 8080, rule="default/web[0]")


def run(*words: str) -> Result:
    result = CliRunner().invoke(command, words)
    if isinstance(result.exception, BadInput):
        raise result.exception
    return result


def test_a_url_alone_is_answered_with_the_method_before_it() -> None:
    with pytest.raises(BadInput) as refused:
        run("client", "http://web/v1", "-f", SCOPES)
    assert refused.value.hint == "give SRC GET http://web/v1"


@pytest.mark.parametrize(
    ("words", "meant"), [((), "shop"), (("-n", "bank"), "bank"), (("-f", SCOPES), "default")]
)
def test_names_without_a_namespace_are_of_the_contexts(
    words: tuple[str, ...], meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: Client) -> Compiled:
        return compile_objects([], MeshSettings())

    opened = Client(Transport(("127.0.0.1", 1)), Fixed(), "shop")
    monkeypatch.setattr(module, "open_client", lambda *_: opened)
    monkeypatch.setattr(module, "compile_cluster", nothing)
    with pytest.raises(BadInput, match=f"no pod {meant}/nobody"):
        run("nobody", "web:8080", *words)


def test_golden(request: pytest.FixtureRequest) -> None:
    text = "".join(run(*words, "-f", SCOPES).stdout + "\n" for words in QUESTIONS)
    if request.config.getoption("--update-golden"):
        (GOLDEN / "offline" / "why.txt").write_text(text)
    assert text == (GOLDEN / "offline" / "why.txt").read_text(), "review it with --update-golden"


def test_exit_codes_and_machine_formats() -> None:
    denied = run("db", "web:8080", "-f", SCOPES, "-o", "json")
    answer = json.loads(denied.stdout)
    assert (denied.exit_code, answer["verdict"]) == (1, "denied")
    assert answer["rulings"][0]["nearest"]["rule"] == "default/web[0]"
    assert yaml.safe_load(run("db", "web:8080", "-f", SCOPES, "-o", "yaml").stdout) == answer
    assert run("db", "192.0.2.1:443", "-f", SCOPES).exit_code == 0
    with pytest.raises(BadInput):
        run("db", "nobody:1", "-f", SCOPES)


def flow(**more: Any) -> dict[str, Any]:
    return {
        "time": 1000.0,
        "node": "node1",
        "reporter": "destination",
        "source": {"address": "10.244.1.3:40000", "namespace": "default", "workload": "db"},
        "destination": {"address": "10.244.1.2:8080", "namespace": "default", "workload": "web"},
        "decision": "deny",
        "policy": "default/web[0]",
    } | more


def test_a_record_confirms_or_contradicts() -> None:
    said = Confirmation(AGREES, DENIED, "default/web[0]", 1000.0, "node1")
    assert confirm("default/db", RULING, [flow()]) == said
    assert confirm("10.244.1.3", RULING, [flow()]) == said
    assert confirm("default/db", RULING, [flow(policy="default/other[1]")]).records == DIFFERS
    assert confirm("default/db", RULING, [flow(decision="allow")]).records == DIFFERS


def test_only_records_of_this_connection_count() -> None:
    others = (
        flow(source={"address": "10.244.1.4:40000", "namespace": "default", "workload": "d"}),
        flow(destination={"address": "10.244.1.2:18080"}),
        flow(destination={"address": "10.244.1.20:8080"}),
    )
    assert confirm("default/db", RULING, others) == Confirmation(NONE)


def test_the_newest_record_counts_and_of_one_connection_the_destination_s() -> None:
    source = flow(reporter="source", time=1000.2, policy="")
    assert confirm("default/db", RULING, [source, flow()]).rule == "default/web[0]"
    later = flow(time=1010.0, decision="allow")
    assert confirm("default/db", RULING, [later, flow()]).records == DIFFERS
    assert confirm("default/db", RULING, [source]).records == AGREES, "the source does not know the rule"


def test_what_records_say_is_told_and_nothing_drives_the_terminal() -> None:
    answer = Answer("default/db", "pod default/web:8080", DENIED, (RULING,))
    told = [
        "\n".join(answer_lines(answer, [each]))
        for each in (
            Confirmation(AGREES, DENIED, "default/web[0]", 1000.0, "node1"),
            Confirmation(DIFFERS, ALLOWED, "", 1000.0, "no\x1bde"),
            Confirmation(NONE),
        )
    ]
    assert "records: the same, denied by default/web[0] at" in told[0]
    assert "records: DIFFERENT, allowed at" in told[1] and "no\x1bde" not in told[1]
    assert "records: no such connection" in told[2]


def test_an_endpoint_that_is_no_pod_is_not_called_one(tmp_path: Path) -> None:
    entry = tmp_path / "entry.yaml"
    ruling = Ruling(ALLOWED, "not captured", "default/db", "203.0.113.10", 5432, is_pod=False)
    lines = list(answer_lines(Answer("default/web", "service default/db:5432", ALLOWED, (ruling,))))
    assert lines[2] == "endpoint default/db (203.0.113.10 port 5432), asked in plain text, without identity"
    entry.write_text(
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: db}, spec: {"
        "hosts: [db.example.com], resolution: STATIC, ports: [{number: 5432, name: tcp}], "
        "endpoints: [{address: 203.0.113.10}]}}"
    )
    found = json.loads(run("10.9.9.9", "db.example.com:5432", "-f", str(entry), "-o", "json").stdout)
    assert [each["isPod"] for each in found["rulings"]] == [False]


class Cluster:
    """A control plane's pod, and the ConfigMap that it mounts."""

    async def list(self, *_: object, **__: object) -> list[dict[str, Any]]:
        volumes = [{"name": "mesh-config", "configMap": {"name": "its-settings"}}]
        containers = [{"name": "discovery", "args": ["control", "run", "--trust-domain", "example.org"]}]
        metadata = {"name": "c", "namespace": "ambit-system"}
        return [{"metadata": metadata, "spec": {"containers": containers, "volumes": volumes}}]

    async def get(self, _: Resource, name: str, namespace: str) -> dict[str, Any]:
        assert (name, namespace) == ("its-settings", "ambit-system")
        return {"data": {"mesh.yaml": "serviceEntryVisibility: {defaultVisibility: NAMESPACE}"}}


async def test_settings_of_a_cluster_are_also_those_that_its_control_plane_mounts() -> None:
    found = await mesh_settings(cast(Client, Cluster()))
    assert found.trust_domain == "example.org"
    assert found.entry_visibility == EntryVisibility(Visibility.NAMESPACE)


class Asked:
    """A cluster without objects, and for which of each kind it was asked."""

    def __init__(self) -> None:
        self.fields: dict[str, str | None] = {}

    async def list(self, kind: Resource, *_: object, **given: Any) -> list[dict[str, Any]]:
        self.fields[kind.kind] = given.get("field_selector")
        return []


async def test_of_a_cluster_the_secrets_are_read_that_its_control_plane_reads_and_no_others() -> None:
    cluster = Asked()
    await compile_cluster(cast(Client, cluster))
    assert cluster.fields["Secret"] == "type=kubernetes.io/tls"
    assert cluster.fields["Gateway"] is None


def test_settings_are_those_of_the_control_plane_s_command_line() -> None:
    words = ["control", "run", "--trust-domain", "example.org", "--root-namespace=mesh", "--network", "n1"]
    found = settings_of(words)
    assert (found.trust_domain, found.root_namespace, found.network, found.cluster_id) == (
        "example.org",
        "mesh",
        "n1",
        "Kubernetes",
    )
    assert found.patches == PatchLimits()
    more = settings_of(["--patch-annotation", "a.b/*", "--patch-annotation=c.d/e", "--patch-replicas", "7"])
    assert more.patches == PatchLimits(("a.b/*", "c.d/e"), 7)
    assert settings_of(["--patch-replicas", "$(MOST)"]).patches == PatchLimits()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("*",), "it is for callers without an identity (notPrincipals), here is a/b"),
        (("a/b", "c/d"), "it is for all but a/b or c/d (notPrincipals), here is a/b"),
    ],
)
def test_what_a_rule_leaves_out_is_said_plainly(wanted: tuple[str, ...], said: str) -> None:
    assert _miss(Miss("notPrincipals", wanted, "a/b")) == said
