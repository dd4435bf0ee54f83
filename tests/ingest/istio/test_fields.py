"""No field of a CRD is dropped in silence: each is enforced, refused with a finding, or ignored for a reason."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.ingest.istio.fields import (
    AT_WAYPOINTS,
    KNOWN,
    Elsewhere,
    Enforced,
    Ignored,
    Refused,
    Treatment,
    reference,
    unknown_fields,
)
from ambit.ingest.istio.fields import KINDS as TABLES
from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.objects.crds import read_bundle
from tests.ingest.build import Given, pod
from tests.ingest.test_mesh import change


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of everything below a schema that holds a value."""
    if "properties" in schema:
        for name, each in schema["properties"].items():
            yield from leaves(each, f"{path}.{name}" if path else name)
    elif schema.get("type") == "array":
        yield from leaves(schema["items"], f"{path}[]")
    elif isinstance(schema.get("additionalProperties"), dict):
        yield from leaves(schema["additionalProperties"], f"{path}{{}}")
    else:
        yield path


@pytest.mark.parametrize("kind", KNOWN)
def test_the_table_is_the_crd(kind: str) -> None:
    [crd] = [each for each in read_bundle("istio") if each["spec"]["names"]["kind"] == kind]
    for version in crd["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert set(leaves(spec)) == set(KNOWN[kind]), version["name"]


MISSPELT: list[tuple[str, dict[Any, Any], list[tuple[str, str]]]] = [
    ("AuthorizationPolicy", {"spec": {"selectr": {}}}, [("spec.selectr", "selector")]),
    ("AuthorizationPolicy", {7: [], "spec": {8: 9}}, [("7", ""), ("spec.8", "")]),
    ("AuthorizationPolicy", {"rule": [], "spec": None}, [("rule", "")]),
    (
        "AuthorizationPolicy",
        {"spec": {"rules": [{}, {"from": [{"source": {"namespaces": ["a"], "principls": ["b"]}}], "q": 1}]}},
        [("spec.rules[1].from[0].source.principls", "principals"), ("spec.rules[1].q", "")],
    ),
    (
        "AuthorizationPolicy",
        {"spec": {"rules": [{"when": [{"key": "a", "value": []}]}]}},
        [
            ("spec.rules[0].when[0].value", "values"),
        ],
    ),
    ("PeerAuthentication", {"spec": {"mtls": {"Mode": "STRICT"}}}, [("spec.mtls.Mode", "mode")]),
    (
        "PeerAuthentication",
        {"spec": {"portLevelMtls": {"80": {"mod": "STRICT"}}}},
        [
            ("spec.portLevelMtls.80.mod", "mode"),
        ],
    ),
    (
        "PeerAuthentication",
        {"spec": {"selector": {"matchLabels": {"any.thing/goes": "x"}}}, "status": {}},
        [],
    ),
    (
        "RequestAuthentication",
        {"spec": {"jwtRules": [{"issuer": "a", "audience": ["b"]}, {"fromHeaders": [{"nam": "c"}]}]}},
        [("spec.jwtRules[0].audience", "audiences"), ("spec.jwtRules[1].fromHeaders[0].nam", "name")],
    ),
    (
        "AuthorizationPolicy",
        {"spec": {"rules": "x", "selector": [], "action": {"a": 1}}},
        [("spec.action.a", "")],
    ),
]


@pytest.mark.parametrize(("kind", "given", "found"), MISSPELT)
def test_a_field_that_does_not_exist_is_named(
    kind: str, given: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    whole = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": "x"}} | given
    assert list(unknown_fields(kind, whole)) == found


SAMPLES: dict[str, Any] = {
    "action": "DENY",
    "name": "web",
    "kind": "Service",
    "mode": "STRICT",
    "key": "source.namespace",
    "ports": "8080",
    "notPorts": "8080",
    "ipBlocks": "10.0.0.0/8",
    "notIpBlocks": "10.0.0.0/8",
    "remoteIpBlocks": "10.0.0.0/8",
    "notRemoteIpBlocks": "10.0.0.0/8",
}
REQUIRED: dict[str, Any] = {
    "targetRef": {"kind": "Service", "name": "db"},
    "targetRefs": {"kind": "Service", "name": "db"},
    "when": {"key": "source.principal", "values": ["x"]},
}


def with_field(spec: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy of a spec in which the field has a value that it did not have."""
    spec = copy.deepcopy(spec)
    node: Any = spec
    parts = path.split(".")
    for i, part in enumerate(parts):
        name = part.rstrip("[]{}")
        last = i == len(parts) - 1
        if part.endswith("[]") and last:
            node[name] = [SAMPLES.get(name, "a/b" if "erviceAccounts" in name else "x-text")]
        elif part.endswith("[]"):
            node = node.setdefault(name, [dict(REQUIRED.get(name, {}))])[0]
        elif part.endswith("{}") and last:
            node[name] = {"app": "web"}
        elif part.endswith("{}"):
            node = node.setdefault(name, {}).setdefault("8080", {})
        elif last:
            node[name] = SAMPLES.get(name, "x-text")
        else:
            node = node.setdefault(name, dict(REQUIRED.get(name, {})))
    return spec


NO_PROXY = "AMB0236"
"""There is no waypoint here, nor anything that a policy names."""


def compiled(kind: str, spec: dict[str, Any], *, at_nodes: bool = True) -> tuple[Any, set[str]]:
    """What nodes are told, or waypoints, and the codes of the findings."""
    resource = {"AuthorizationPolicy": "authorizationpolicies", "PeerAuthentication": "peerauthentications"}[
        kind
    ]
    given: Given = (
        f"{resource}.security.istio.io",
        {"metadata": {"name": "p", "namespace": "default"}, "spec": spec},
    )
    compiler = MeshCompiler(MeshSettings())
    compiler.apply(map(change, [given, pod("web", "10.0.0.1"), pod("db", "10.0.0.2", labels={"app": "db"})]))
    if not at_nodes:
        codes = {finding.code for finding in compiler.findings}
        return dict(compiler.request_policies), codes - {NO_PROXY}
    named = {uid: each.policies for uid, each in compiler.workloads.items() if each.policies}
    return (dict(compiler.authorizations), named), {finding.code for finding in compiler.findings}


BASE: dict[str, dict[str, Any]] = {
    "AuthorizationPolicy": {"rules": [{"from": [{"source": {"namespaces": ["a"]}}]}]},
    "PeerAuthentication": {"selector": {"matchLabels": {"app": "db"}}},
}


@pytest.mark.parametrize(
    ("kind", "path", "treatment"),
    [(kind, path, treatment) for kind, table in TABLES.items() for path, treatment in table.items()],
)
def test_the_compiler_does_what_the_table_says(kind: str, path: str, treatment: Treatment) -> None:
    base = BASE[kind]
    if "matchLabels" in path and kind == "PeerAuthentication":
        base = {**base, "mtls": {"mode": "STRICT"}}
    holds(kind, base, path, treatment)


@pytest.mark.parametrize(("path", "treatment"), AT_WAYPOINTS.items())
def test_waypoints_are_told_what_the_table_says(path: str, treatment: Treatment) -> None:
    targets = {} if path.startswith("targetRef") else {"targetRefs": [{"kind": "Service", "name": "web"}]}
    holds("AuthorizationPolicy", {**BASE["AuthorizationPolicy"], **targets}, path, treatment, at_nodes=False)


def holds(kind: str, base: dict[str, Any], path: str, treatment: Treatment, *, at_nodes: bool = True) -> None:
    before, no_findings = compiled(kind, base, at_nodes=at_nodes)
    after, findings = compiled(kind, with_field(base, path), at_nodes=at_nodes)
    assert not no_findings
    match treatment:
        case Enforced():
            assert after != before and not findings
        case Refused(codes):
            assert findings and findings <= set(codes)
            _, findings = compiled(kind, with_field({**base, "action": "DENY"}, path), at_nodes=at_nodes)
            assert findings and findings <= set(codes)
        case Ignored(reason):
            assert after == before and reason
        case Elsewhere():
            assert not any(after)


def test_paths_are_well_formed() -> None:
    for table in TABLES.values():
        for path in table:
            assert re.fullmatch(r"\w+(\[\]|\{\})?(\.\w+(\[\]|\{\})?)*", path), path


def test_the_page_for_users_holds_the_tables() -> None:
    page = Path(__file__).parents[3] / "docs/policy.md"
    assert page.read_text().endswith("## Every field\n\n" + reference())
