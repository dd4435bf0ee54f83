"""A caller's route that has somebody asked, where requests are read at the node that they come from: nobody passes."""

import pytest

from ambit.model.http import Action, Entry, ExternalAuth, RequestMatch
from ambit.model.provider import Authorizer, OverHttp, ProviderService
from tests.plan.waypoint.conftest import V2, Scene
from tests.plan.waypoint.placements import INLINE
from tests.plan.waypoint.test_actions import TO_V1, TO_V2

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    pytest.mark.parametrize("placement", [INLINE], indirect=True),
]


@pytest.mark.parametrize("http", [None, OverHttp()], ids=["grpc", "http"])
def test_who_meets_it_gets_nowhere_and_others_pass(scene: Scene, http: OverHttp | None) -> None:
    whom = ExternalAuth(V2.key, Authorizer("v2", ProviderService(V2.hostname, 80), http=http))
    asking = Action((TO_V1,), external_auth=whom)
    (namespace, other) = (scene.client.identity.namespace, "elsewhere")
    for of, wanted in ((namespace, "403"), (other, "v2")):
        theirs = Entry("elsewhere/theirs/0", RequestMatch(source_namespaces=(of,)), asking)
        scene.route(theirs, Entry("default/own/0", RequestMatch(), Action((TO_V2,))))
        assert scene.get().server == wanted
