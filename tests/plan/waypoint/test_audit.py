"""What AUDIT policies match is told, whatever is decided, by who reads requests: a waypoint, or the node of the pod."""

import msgspec
import pytest

from ambit.agent.record import Flow, Reporter
from ambit.model.policy import Exact, Prefix
from ambit.model.request_policy import Attribute, RequestAction, Rule
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import Scene
from tests.plan.waypoint.placements import INLINE
from tests.plan.waypoint.test_authorization import enforce, one, policy, rule

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    pytest.mark.feature("F169"),
]

AUDIT, DENY = RequestAction.AUDIT, RequestAction.DENY


def on(path: str) -> Rule:
    return rule(one(Attribute.PATH, Prefix(path)))


def told(scene: Scene, path: str) -> Flow:
    """The record of the one request for this path."""
    found: list[Flow] = []

    def came() -> bool:
        by_nodes = (each for agent in scene.mesh.agents.values() for each in agent.told())
        at_pods = (each for each in by_nodes if each.reporter is Reporter.DESTINATION)
        records = at_pods if scene.placement == INLINE else scene.waypoint.told()
        found[:] = [each for each in records if each.request is not None and each.request.path == path]
        return bool(found)

    until(came, f"record of {path}")
    (only,) = found
    return only


def test_each_policy_with_its_first_rule(scene: Scene) -> None:
    enforce(scene, policy(AUDIT, on("/audit/x"), on("/audit"), name="a"), policy(AUDIT, Rule(), name="b"))
    for path, rules in (
        ("/audit/x", ("default/a[0]", "default/b[0]")),
        ("/audit/y", ("default/a[1]", "default/b[0]")),
        ("/unaudited", ("default/b[0]",)),
    ):
        assert scene.get(path).status == 200
        flow = told(scene, path)
        assert (flow.audited, flow.decision, flow.dry_run) == (rules, "allow", "")


def test_what_is_denied_too(scene: Scene) -> None:
    enforce(scene, policy(AUDIT, on("/audited"), name="a"), policy(DENY, on("/audited/1"), name="d"))
    assert [scene.get(each).status for each in ("/audited/1", "/audited/2", "/quiet")] == [403, 200, 200]
    denied = told(scene, "/audited/1")
    assert (denied.audited, denied.decision, denied.policy) == (("default/a[0]",), "deny", "default/d[0]")
    assert denied.source.identity == scene.client.identity.uri
    allowed = told(scene, "/audited/2")
    assert (allowed.audited, allowed.decision) == (("default/a[0]",), "allow")
    quiet = told(scene, "/quiet")
    assert quiet.audited == ()


def test_beside_a_dry_run(scene: Scene) -> None:
    trial = msgspec.structs.replace(policy(DENY, on("/both"), name="t"), dry_run=True)
    enforce(scene, policy(AUDIT, rule(one(Attribute.METHOD, Exact("PUT"))), name="a"), trial)
    for path, method, audited, dry_run in (
        ("/both/1", "PUT", ("default/a[0]",), "default/t[0]"),
        ("/both/2", "GET", (), "default/t[0]"),
        ("/neither/1", "PUT", ("default/a[0]",), ""),
        ("/neither/2", "GET", (), ""),
    ):
        assert scene.get(path, method=method).status == 200
        flow = told(scene, path)
        assert (flow.audited, flow.dry_run) == (audited, dry_run)


def test_many_rules_together_are_told_by_the_first(scene: Scene) -> None:
    rules = [on(f"/many/{number}") for number in range(9)]
    enforce(scene, *(policy(AUDIT, *rules, name=name) for name in ("a", "b", "c")))
    assert scene.get("/many/8").status == 200
    flow = told(scene, "/many/8")
    assert flow.audited == ("default/a[8]",)
