"""What a waypoint answers in place of a server says why; what a server answers does not."""

import pytest

from ambit.envoy.refusals import HEADER
from ambit.model.http import Action, Backend, Entry, Host, PathKind, PathMatch, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.request_policy import RequestPolicy
from tests.plan.waypoint.conftest import EMPTY, PORT, V1, WEB, Scene
from tests.plan.waypoint.test_authorization import ALLOW, SERVICE
from tests.plan.waypoint.test_tokens import ISSUER, RULE, bearer
from tests.plan.waypoint.test_tokens import policy as tokens

pytestmark = [pytest.mark.envoy, pytest.mark.netns]


def entry(path: str, *backends: Backend, status: int = 500) -> Entry:
    return Entry(path, RequestMatch(PathMatch(PathKind.EXACT, path)), Action(backends, status=status))


def test_the_reason_of_a_refusal(scene: Scene) -> None:
    to_v1, nobody = Backend(V1.key, PORT), Backend("default/gone.default.svc.cluster.local", PORT)
    rules = (
        entry("/v1", to_v1),
        entry("/empty", Backend(EMPTY.key, PORT)),
        entry("/gone", nobody),
        entry("/not-mine", status=404),
    )
    scene.bind(ServiceRoutes(WEB.key, PORT, (Host(("*",), rules),)))
    told = {
        path: (answer.status, answer.header(HEADER))
        for path in ("/v1", "/empty", "/gone", "/not-mine", "/none")
        if (answer := scene.get(path))
    }
    assert told == {
        "/v1": (200, None),
        "/empty": (503, "NoHealthyUpstream"),
        "/gone": (500, "NoClusterFound"),
        "/not-mine": (404, "rule"),
        "/none": (404, "NoRouteFound"),
    }
    answer = scene.get("/v1", x_want_status="503")
    assert (answer.status, answer.header(HEADER)) == (503, None), "a server's own answer"


def test_the_reason_of_a_denial_names_no_policy(scene: Scene) -> None:
    scene.bind(authorization=(RequestPolicy("secret-name", "default", ALLOW, SERVICE),))
    answer = scene.get("/a")
    assert (answer.status, answer.header(HEADER)) == (403, "denied")
    assert not any("secret-name" in value for _, value in answer.headers)


def test_the_reason_of_a_bad_token(scene: Scene) -> None:
    scene.bind(tokens=(tokens(RULE),))
    answer = bearer(scene, ISSUER.token(lifetime=-120))
    assert (answer.status, answer.header(HEADER)) == (401, "unauthenticated")
