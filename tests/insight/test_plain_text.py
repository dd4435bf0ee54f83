"""Which PeerAuthentication decides about plain text: the same as the policies that come of them all."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.core.names import CONVERTED_STRICT_POLICY
from ambit.ingest.istio.peer import CONVERTED_PREFIX
from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import compile_objects
from ambit.insight.why import why
from tests.insight.test_why import pod

MODES = st.sampled_from(["UNSET", "DISABLE", "PERMISSIVE", "STRICT"])
SELECTORS = st.sampled_from([None, {"matchLabels": {"app": "web"}}, {"matchLabels": {"app": "other"}}])
STRANGER = "10.9.9.9"


@st.composite
def peer(draw: st.DrawFn, index: int) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "mtls": {"mode": draw(MODES)},
        "portLevelMtls": draw(st.sampled_from([{}, {"80": {}}])),
    }
    spec["portLevelMtls"] = {port: {"mode": draw(MODES)} for port in spec["portLevelMtls"]}
    if (selector := draw(SELECTORS)) is not None:
        spec["selector"] = selector
    metadata = {
        "name": f"p{index}",
        "namespace": draw(st.sampled_from(["default", "istio-system", "elsewhere"])),
        "creationTimestamp": f"2026-01-0{draw(st.integers(1, 4))}T00:00:00Z",
    }
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": metadata,
        "spec": spec,
    }


@given(st.integers(0, 5).flatmap(lambda many: st.tuples(*map(peer, range(many)))), st.sampled_from([80, 81]))
@settings(max_examples=150, deadline=None)
def test_it_is_the_one_that_decides(peers: tuple[dict[str, Any], ...], port: int) -> None:
    server = pod("web-1", "10.244.1.2")
    compiled = compile_objects([("test", each) for each in (server, *peers)], MeshSettings())
    (ruling,) = why(STRANGER, f"web-1:{port}", compiled).rulings
    refused = ruling.verdict == "denied"
    assert refused == (ruling.mode == "STRICT")
    if refused:
        assert ruling.rule.partition("/")[2].startswith((CONVERTED_STRICT_POLICY, CONVERTED_PREFIX))
        assert ruling.mode_by
    for each in peers:
        if ruling.mode_by == f"PeerAuthentication {each['metadata']['namespace']}/{each['metadata']['name']}":
            each["spec"] |= {"mtls": {"mode": "PERMISSIVE" if refused else "STRICT"}, "portLevelMtls": {}}
    compiled = compile_objects([("test", each) for each in (server, *peers)], MeshSettings())
    (turned,) = why(STRANGER, f"web-1:{port}", compiled).rulings
    assert (turned.verdict != ruling.verdict) == bool(ruling.mode_by)


def test_who_is_known_has_no_mode() -> None:
    pods = [pod("web-1", "10.244.1.2"), pod("client", "10.244.1.3")]
    compiled = compile_objects([("test", each) for each in pods], MeshSettings())
    assert [each.mode for each in why("client", "web-1:80", compiled).rulings] == [""]
