"""PeerAuthentication to L4 policy, against the sentence "the oldest of the nearest level that says something"."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.policy import Match, Presence
from ambit.model.view import Snapshot
from ambit.policy.decide import ConnectionFacts, decide
from tests.ingest.build import Given, peer, pod
from tests.ingest.test_mesh import change

WEB = "Kubernetes//Pod/default/web"
STATIC = "istio-system/istio_converted_static_strict"
ROOT = "istio-system"


def compiler(*given: Given) -> MeshCompiler:
    made = MeshCompiler(MeshSettings())
    made.apply(map(change, [pod("web", "10.0.0.1"), *given]))
    return made


def named(*given: Given) -> tuple[str, ...]:
    return compiler(*given).workloads[WEB].policies


@pytest.mark.parametrize(
    ("given", "policies"),
    [
        ([], ()),
        ([peer("a", mode="PERMISSIVE")], ()),
        ([peer("a", namespace=ROOT, mode="STRICT")], (STATIC,)),
        ([peer("a", namespace=ROOT, mode="STRICT"), peer("b", mode="PERMISSIVE")], ()),
        ([peer("a", namespace=ROOT, mode="STRICT"), peer("b", mode="DISABLE")], ()),
        ([peer("a", namespace=ROOT, mode="STRICT"), peer("b", mode="UNSET")], (STATIC,)),
        ([peer("a", namespace=ROOT, mode="STRICT"), peer("b")], (STATIC,)),
        ([peer("a", mode="STRICT"), peer("b", selector={"app": "web"}, mode="PERMISSIVE")], ()),
        ([peer("a", mode="STRICT"), peer("b", selector={"app": "db"}, mode="PERMISSIVE")], (STATIC,)),
        ([peer("b", selector={"app": "web"}, mode="STRICT")], (STATIC,)),
        ([peer("b", namespace="other", mode="STRICT")], ()),
        ([peer("b", namespace=ROOT, selector={"app": "web"}, mode="STRICT")], ()),
    ],
)
def test_levels(given: list[Given], policies: tuple[str, ...]) -> None:
    assert named(*given) == policies


def test_the_oldest_counts_and_the_other_is_told() -> None:
    old = peer("z", mode="STRICT", created="2025-01-01T00:00:00Z")
    new = peer("a", mode="PERMISSIVE", created="2026-01-01T00:00:00Z")
    made = compiler(new, old)
    assert made.workloads[WEB].policies == (STATIC,)
    assert [(each.code, each.origin.name) for each in made.findings] == [("AMB0223", "a")]
    same_age = peer("a", mode="PERMISSIVE", created="2025-01-01T00:00:00Z")
    assert named(old, same_age) == (), "by name when the age is the same"


def test_ports_make_a_policy_of_their_own() -> None:
    made = compiler(
        peer("mesh", namespace=ROOT, mode="STRICT"),
        peer("web", selector={"app": "web"}, ports={8080: "PERMISSIVE", 9090: "DISABLE", 7070: "STRICT"}),
    )
    [name] = made.workloads[WEB].policies
    assert name == "default/converted_peer_authentication_web"
    [rule] = made.authorizations[name].rules
    [clause] = rule.clauses
    assert clause.matches == (Match(not_principals=(Presence(),), not_destination_ports=(8080, 9090)),)


def test_only_strict_ports_under_a_permissive_mesh() -> None:
    made = compiler(peer("web", selector={"app": "web"}, ports={8080: "STRICT", 9090: "UNSET"}))
    [name] = made.workloads[WEB].policies
    [rule] = made.authorizations[name].rules
    assert rule.clauses[0].matches == (Match(not_principals=(Presence(),), destination_ports=(8080,)),)


def test_a_change_of_the_mesh_level_remakes_what_depends_on_it() -> None:
    ports = peer("web", selector={"app": "web"}, ports={8080: "PERMISSIVE"})
    made = compiler(ports)
    assert made.workloads[WEB].policies == () and set(made.authorizations) == {STATIC}
    made.apply([change(peer("mesh", namespace=ROOT, mode="STRICT"))])
    assert made.workloads[WEB].policies == ("default/converted_peer_authentication_web",)
    assert set(made.authorizations) == {STATIC, "default/converted_peer_authentication_web"}


@pytest.mark.parametrize(
    ("given", "code", "policies"),
    [
        (peer("a", mode="ON"), "AMB0225", (STATIC,)),
        (
            peer("a", selector={"app": "web"}, mode="PERMISSIVE", ports={"http": "STRICT"}),
            "AMB0210",
            (STATIC,),
        ),
        (peer("a", selector={"app": "web"}, ports={80: "x"}), "AMB0225", (STATIC,)),
        (peer("a", mode="STRICT", ports={80: "PERMISSIVE"}), "AMB0222", (STATIC,)),
        (peer("a", mode="DISABLE"), "AMB0224", ()),
        (peer("a", namespace=ROOT, selector={"app": "web"}, mode="STRICT"), "AMB0221", ()),
    ],
)
def test_findings(given: Given, code: str, policies: tuple[str, ...]) -> None:
    made = compiler(given)
    assert [finding.code for finding in made.findings] == [code]
    assert made.workloads[WEB].policies == policies


def test_one_that_does_not_decode_is_strict() -> None:
    resource, body = peer("a", selector={"app": "web"})
    body["spec"]["mtls"] = "STRICT"
    made = compiler((resource, body))
    assert [finding.code for finding in made.findings] == ["AMB0002"]
    assert made.workloads[WEB].policies == (STATIC,)


MODES = st.sampled_from(["UNSET", "DISABLE", "PERMISSIVE", "STRICT"])
AGES = st.sampled_from(["2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"])
Spec = dict[str, Any]


@st.composite
def peers(draw: st.DrawFn) -> list[Spec]:
    count = draw(st.integers(0, 5))
    return [
        {
            "name": f"p{i}",
            "namespace": draw(st.sampled_from([ROOT, "default", "default", "other"])),
            "mode": draw(MODES),
            "selector": draw(st.sampled_from([None, {"app": "web"}, {"app": "db"}])),
            "ports": draw(st.dictionaries(st.sampled_from([80, 81]), MODES)),
            "created": draw(AGES),
        }
        for i in range(count)
    ]


def expected(specs: list[Spec], port: int) -> str:
    """The mode on a port of the pod, straight from Istio's documentation."""

    def first(found: list[Spec]) -> Spec | None:
        return min(found, key=lambda spec: (spec["created"], spec["namespace"], spec["name"]), default=None)

    own = first([s for s in specs if s["namespace"] == "default" and s["selector"] == {"app": "web"}])
    namespace = first([s for s in specs if s["namespace"] == "default" and s["selector"] is None])
    mesh = first([s for s in specs if s["namespace"] == ROOT and s["selector"] is None])
    said = [
        own["ports"].get(port, "UNSET") if own else "UNSET",
        *(s["mode"] for s in (own, namespace, mesh) if s),
    ]
    return next((mode for mode in said if mode != "UNSET"), "PERMISSIVE")


@given(peers(), st.sampled_from([80, 81, 82]))
def test_plain_text_is_refused_exactly_where_the_mode_is_strict(specs: list[Spec], port: int) -> None:
    made = compiler(*(peer(**spec) for spec in specs))
    web = made.workloads[WEB]
    policies, missing = Snapshot([web], (), made.authorizations.values()).policies_for(web)
    plain = ConnectionFacts(ipaddress.ip_address("10.0.0.9"), web.addresses[0], port)
    assert not missing
    assert decide(policies, plain).allowed is (expected(specs, port) != "STRICT")
    mutual = ConnectionFacts(
        ipaddress.ip_address("10.0.0.9"), web.addresses[0], port, Identity("td", "a", "b")
    )
    assert decide(policies, mutual).allowed


def test_workloads_depend_on_the_outcome_of_a_level_only() -> None:
    made = compiler(peer("mesh", namespace=ROOT, mode="STRICT"))
    [before] = [each.recomputations for each in made.statistics() if each.name == "pod workloads"]
    younger = peer("another", namespace=ROOT, mode="PERMISSIVE", created="2027-01-01T00:00:00Z")
    delta = made.apply([change(younger)])
    [after] = [each.recomputations for each in made.statistics() if each.name == "pod workloads"]
    assert after == before and not delta.workloads and delta.findings
