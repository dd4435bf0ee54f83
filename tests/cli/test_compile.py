"""`ambit compile`: files to what nodes and their Envoys would be told, without a cluster."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from google.protobuf import json_format

from ambit.cli.commands.compile import command
from ambit.core.errors import BadInput
from ambit.xds.messages import decode_address, decode_authorization
from ambit.xds.protos import authorization_pb2, workload_pb2

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = GOLDEN / "compile"
OFFLINE = GOLDEN / "offline"
SCOPES = str(CASES / "policy_scopes" / "in.yaml")
DEPLOYMENT = str(CASES / "enrolled_deployment" / "in.yaml")
OUTPUTS = {
    "workloads.yaml": ("-f", SCOPES, "-f", DEPLOYMENT),
    "model.yaml": ("-o", "model", SCOPES),
    "envoy.txt": ("-o", "envoy", SCOPES, DEPLOYMENT),
}


def run(*words: str, stdin: str = "") -> Result:
    result = CliRunner().invoke(command, words, input=stdin)
    if isinstance(result.exception, BadInput):
        raise result.exception
    return result


def content(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("name", OUTPUTS)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    """Of Envoy's resources the list; what is in them `tests/golden/node_proxy` shows."""
    result = run(*OUTPUTS[name])
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    if name.endswith(".txt"):
        text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(("# ", "'@type'")))
    if request.config.getoption("--update-golden"):
        (OFFLINE / name).write_text(text)
    assert text == (OFFLINE / name).read_text(), "review it with --update-golden"


def test_documents_are_messages_of_the_workload_api_in_protobuf_json() -> None:
    names = []
    for document in content(run(SCOPES, DEPLOYMENT).stdout):
        if {"workload", "service"} & document.keys():
            address = json_format.ParseDict(document, workload_pb2.Address())
            names.append(decode_address(address.SerializeToString()).key)
        else:
            policy = json_format.ParseDict(document, authorization_pb2.Authorization())
            names.append(decode_authorization(policy.SerializeToString()).key)
    first = next(index for index, name in enumerate(names) if "//Pod/" in name)
    assert "default/web" in names[:first] and "Kubernetes//Pod/default/web" in names[first:]


def test_findings_and_notes_go_to_standard_error_and_an_error_to_the_exit_code() -> None:
    result = run(str(CASES / "policy_findings" / "in.yaml"))
    assert result.exit_code == 2
    assert "AMB0212 [error] AuthorizationPolicy default/malformed-deny" in result.stderr
    assert "AMB0212" not in result.stdout and content(result.stdout)
    warned = run("-", stdin=POLICY.replace("namespaces: [a]", "requestPrincipals: [a]"))
    assert warned.exit_code == 0 and "AMB0201" in warned.stderr


POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one}
spec: {rules: [{from: [{source: {namespaces: [a]}}]}]}
"""


def test_lists_folders_namespaces_and_other_kinds(tmp_path: Path) -> None:
    as_list = {"apiVersion": "v1", "kind": "List", "items": content(POLICY)}
    (tmp_path / "a.json").write_text(json.dumps(as_list))
    other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\n---\n"
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: early}\n"
    (tmp_path / "b.yaml").write_text(other + pod)
    (tmp_path / "notes.txt").write_text("not read: [")
    result = run("-n", "team", "-f", str(tmp_path), "-f", "-", stdin=POLICY)
    (found,) = content(result.stdout)
    assert (found["namespace"], found["name"]) == ("team", "one")
    assert "Deployment team/web" in result.stderr
    assert "pods without an address are not in the mesh yet: team/early" in result.stderr
    assert "AuthorizationPolicy team/one is given more than once" in result.stderr


def test_the_root_namespace_and_the_trust_domain_are_settings() -> None:
    policy = POLICY.replace("name: one", "name: one, namespace: mesh")
    (found,) = content(run("--root-namespace", "mesh", "-", stdin=policy).stdout)
    assert "scope" not in found, "GLOBAL is the default value"
    workloads = content(run("--trust-domain", "example.org", SCOPES).stdout)
    assert {each["workload"]["trustDomain"] for each in workloads if "workload" in each} == {"example.org"}


def test_a_pod_alone_of_what_envoy_gets() -> None:
    whole = run("-o", "envoy", SCOPES).stdout
    alone = run("-o", "envoy", "--pod", "default/web", SCOPES).stdout
    assert "default/db" in whole and "default/db/" not in alone and "default/web/" in alone
    with pytest.raises(BadInput, match="no pod default/nobody"):
        run("-o", "envoy", "--pod", "default/nobody", SCOPES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"standard input is no YAML: [^<]* at line 2, column 1$"),
        ("just text", "document 1 is no object"),
        ("kind: Pod\nmetadata: {name: x}", "document 1 is no object: apiVersion and kind"),
        ("apiVersion: v1\nkind: Pod", "document 1 is no Pod: .*metadata"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: ''}", "metadata.name is empty"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostNetwork: 'no'}", "is no Pod: .*bool"),
        ("apiVersion: v1\nkind: List\nitems: [7]", "document 1, item 1 is no object"),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicies\nmetadata: {name: x}",
            "has no kind AuthorizationPolicies; it has AuthorizationPolicy,",
        ),
    ],
)
def test_what_is_no_object_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run("-", stdin=text)


def test_a_field_that_is_null_is_absent_as_for_kubectl() -> None:
    """Those of every kind: `tests/objects/test_nulls.py`."""
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: web%s}\nspec: {clusterIP: 10.96.0.9%s}\n"
    nulls = service % (", labels: null, namespace: null", ", selector: null, ports: null, type: null")
    result = run("-", stdin=nulls)
    assert result.exit_code == 0
    assert content(result.stdout) and content(result.stdout) == content(
        run("-", stdin=service % ("", "")).stdout
    )


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for words in (("-f", str(tmp_path / "none.yaml")), ("-f", str(tmp_path)), ()):
        with pytest.raises(BadInput):
            run(*words)


def test_it_works_without_anything_that_runs() -> None:
    """Neither a cluster nor a state directory is looked at."""
    done = subprocess.run(
        [sys.executable, "-m", "ambit", "compile", "-f", SCOPES],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/nonexistent", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0 and "istio.workload.Address" in done.stdout, done.stderr


def test_a_file_without_an_object_is_noted(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("---\n# nothing\n")
    result = CliRunner().invoke(command, ["-f", str(empty)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"note: no object is in {empty}\n"


DEEP = "[" * 100_000 + "]" * 100_000
UNTIL_SPEC = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\n"
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ' + DEEP + "}", "standard input is no YAML: line 1: nested deeper than 100 levels"),
        (UNTIL_SPEC + "spec: {rules: " + "[" * 5000 + "]" * 5000 + "}", "line 4: nested deeper"),
        (UNTIL_SPEC + "spec: &x {rules: [*x]}", r"line 4: \*x is inside what it refers to"),
        (BOMB, "aliases come to more than"),
        (
            UNTIL_SPEC + "spec: {action: DENY, rules: [{}]}\nspec: {action: ALLOW, rules: [{}]}",
            "document 1, line 5: spec is given twice",
        ),
        ('{"kind": "Pod",\n"spec": {"a": 1, "a": 2}}', r"document 1, line 2: spec\.a is given twice"),
        (
            '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "\\ud800"}, "x": 1' + "0" * 30 + "}",
            "standard input, document 1 is no Pod",
        ),
    ],
    ids=["json", "spec", "itself", "bomb", "twice", "twice-json", "unencodable"],
)
def test_what_is_made_to_hurt_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run("-", stdin=text)


def test_what_cannot_be_answered_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"^{tmp_path}/none cannot be read: No such file or directory$"):
        run(str(tmp_path / "none"))
    with pytest.raises(BadInput, match="no pod web with an address") as refused:
        run(SCOPES, "-o", "envoy", "--pod", "web")
    assert "NAMESPACE/NAME" in refused.value.hint
    policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict}}"
    silent = run("-", "-o", "envoy", stdin=policy)
    assert (silent.stdout, silent.exit_code) == ("", 0)
    assert "note: no pod with a node" in silent.stderr
