"""Ways around the policies that protect a service at its waypoint are told on the service."""

import pytest

from ambit.core.finding import Level
from ambit.ingest.mesh import Change, MeshCompiler
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, parent, route, to, waypoint
from tests.ingest.gateway.test_canary import with_canary
from tests.ingest.test_mesh import change, compiler
from tests.ingest.test_only_by_waypoint import labelled
from tests.ingest.test_unenforced import GATEWAY, WEB_SERVICE, policy

WEB = bound(service("web", {"app": "web"}), "waypoint")
POD = pod("web-1", "10.244.1.2", labels={"app": "web"})
MESH = (waypoint(), POD)


def sibling(name: str = "web-v1", target: int = 8080, by: str = "waypoint") -> Given:
    made = service(name, {"app": "web"}, ip="10.96.0.10", target=target)
    return bound(made, by) if by else made


def routed(service: str, backend: str) -> Given:
    return route({"backendRefs": [to(backend)]}, parents=(parent(service),))


def told(made: MeshCompiler) -> list[str]:
    found = [each for each in made.findings if each.code == "AMB0410"]
    assert all((each.level, str(each.origin)) == (Level.WARNING, "Service default/web") for each in found)
    return [each.text for each in found]


@pytest.mark.feature("F51")
@pytest.mark.parametrize(
    "given",
    [
        [WEB, policy(WEB_SERVICE)],
        [WEB, policy(GATEWAY), sibling()],
        [WEB, policy(WEB_SERVICE, {"kind": "Service", "name": "web-v1"}), sibling()],
        [WEB, policy(WEB_SERVICE), sibling(by="")],
        [WEB, policy(WEB_SERVICE), sibling(target=9090)],
        [WEB, policy(WEB_SERVICE), waypoint("other"), sibling(by="other")],
        [WEB, policy(WEB_SERVICE), pod("web-2", "10.244.1.3", redirected=False, ready=False)],
        [with_canary(WEB), policy(WEB_SERVICE), waypoint("next")],
        [with_canary(WEB), policy(GATEWAY, {**GATEWAY, "name": "next"}), waypoint("next")],
        [WEB, policy(GATEWAY), sibling("other", target=9090), routed("other", "web")],
        [WEB, policy(WEB_SERVICE), sibling("other", target=9090), routed("other", "other")],
        [WEB, policy(WEB_SERVICE), waypoint("more"), sibling("other", 9090, "more"), routed("other", "web")],
        [WEB, policy(WEB_SERVICE), sibling(by=""), routed("web", "web-v1")],
        [WEB, policy(WEB_SERVICE, action="AUDIT"), pod("web-2", "10.244.1.3", redirected=False)],
        [service("web", {"app": "web"}), pod("web-2", "10.244.1.3", redirected=False)],
    ],
    ids=[
        "alone",
        "by the Gateway",
        "both are named",
        "nodes refuse who comes without the waypoint",
        "another port",
        "nodes refuse another waypoint",
        "a pod that starts",
        "both waypoints ask it",
        "both waypoints are named",
        "a route at the waypoint that is named",
        "a route to somebody else",
        "a route at a waypoint that nodes refuse",
        "a route of its own",
        "nothing is forbidden",
        "no waypoint",
    ],
)
def test_there_is_none(given: list[Given]) -> None:
    assert told(compiler(*MESH, *given)) == []


@pytest.mark.feature("F51")
def test_another_service_of_the_same_pods_is_told() -> None:
    made = compiler(*MESH, WEB, policy(WEB_SERVICE), sibling())
    (text,) = told(made)
    assert text == (
        "default/web-v1 leads to the same pods by a waypoint, and the policy default/p is not for it"
    )
    made.apply([change(policy(WEB_SERVICE, {"kind": "Service", "name": "web-v1"}))])
    assert told(made) == []


def test_another_waypoint_that_pods_let_in_is_told() -> None:
    other = policy({"kind": "Service", "name": "web-v1"})
    other[1]["metadata"]["name"] = "q"
    given = (WEB, policy(WEB_SERVICE), other, waypoint("other"), sibling(by="other"))
    found = [each.text for each in compiler(*MESH, *given).findings if each.code == "AMB0410"]
    assert found == [
        "default/web-v1 leads to the same pods by a waypoint, and the policy default/p is not for it",
        "default/web leads to the same pods by a waypoint, and the policy default/q is not for it",
    ]


def test_a_second_waypoint_that_the_policy_is_not_for_is_told() -> None:
    given = (with_canary(WEB), waypoint("next"))
    (text,) = told(compiler(*MESH, *given, policy(GATEWAY)))
    assert text == "connections pass through default/next as well, and the policy default/p is not for it"
    (text,) = told(compiler(*MESH, *given, policy({**GATEWAY, "name": "next"})))
    assert text == "connections pass through default/waypoint as well, and the policy default/p is not for it"


@pytest.mark.parametrize("backend", ["web", "web-v1"])
def test_a_route_of_another_service_is_told(backend: str) -> None:
    """To the service, or to another one of the same pods; what is only copied gets there, too."""
    given = (WEB, policy(WEB_SERVICE), sibling(by=""), sibling("other", target=9090))
    copied = {"type": "RequestMirror", "requestMirror": {"backendRef": to(backend)}}
    for rule in ({"backendRefs": [to(backend)]}, {"backendRefs": [to("other")], "filters": [copied]}):
        made = compiler(*MESH, *given, route(rule, parents=(parent("other"),)))
        (text,) = told(made)
        assert (
            text == "default/other leads to the same pods by a route, and the policy default/p is not for it"
        )


def test_pods_that_are_not_captured_on_the_way_in_are_told() -> None:
    open_pod = pod("web-2", "10.244.1.3", labels={"app": "web"})
    open_pod[1]["metadata"]["annotations"]["ambient.istio.io/bypass-inbound-capture"] = "True"
    made = compiler(*MESH, WEB, policy(WEB_SERVICE), open_pod)
    (text,) = told(made)
    assert text.startswith("pods default/web-2 are not captured on the way in (ambient.istio.io/bypass")
    made.apply([change(pod("web-2", "10.244.1.3", labels={"app": "web"}))])
    assert told(made) == []


def test_pods_outside_of_the_mesh_are_told() -> None:
    outside = [pod(f"web-{number}", f"10.244.1.{number}", redirected=False) for number in range(3, 8)]
    made = compiler(*MESH, WEB, policy(WEB_SERVICE), *outside)
    (text,) = told(made)
    assert text.startswith("pods default/web-3, default/web-4, default/web-5 and 2 more are not in the mesh")
    made.apply([Change("pods", f"default/web-{number}") for number in range(3, 8)])
    assert told(made) == []


def test_the_written_exception_is_told() -> None:
    (text,) = told(compiler(*MESH, labelled(WEB), policy(WEB_SERVICE), sibling()))
    assert text == "ambit.io/fail-open lets connections past the policy default/p"
