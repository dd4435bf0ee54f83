"""From a client through a waypoint to the endpoints: what goes on, as whom, and what does not."""

import json
from collections.abc import Iterator

import pytest

from ambit.envoy.http import taken_headers
from ambit.envoy.http.authorizers import QUESTION
from ambit.model.workload import Workload
from ambit.plan.l7.waypoint import Bound
from tests.plan import test_waypoint_golden
from tests.plan.dataplane.network import REFUSED
from tests.plan.waypoint.conftest import EMPTY, IDENTITY, OUTSIDE, TARGET, TCP_PORT, V1, WEB, Scene
from tests.plan.waypoint.echo import ask, connection
from tests.plan.waypoint.placements import INLINE, at_waypoints_only
from tests.wire import hbone

pytestmark = [pytest.mark.envoy, pytest.mark.netns]


def test_requests_go_to_the_services_own_endpoints(scene: Scene) -> None:
    answer = scene.get("/a?b=c")
    assert (answer.status, answer.server) == (200, "v1")
    assert (answer.echo["path"], answer.echo["headers"]["host"]) == ("/a?b=c", ["web"])


BETWEEN = at_waypoints_only("it is about the proxy between")
BY_ADDRESS = at_waypoints_only("an inline waypoint is for services only")


@BETWEEN
@pytest.mark.feature("N22")
def test_backends_learn_who_called(scene: Scene) -> None:
    """And not from what the caller says of itself."""
    answer = scene.get(x_forwarded_client_cert="By=nobody;URI=spiffe://cluster.local/ns/other/sa/king")
    expected = f"By={IDENTITY.uri};URI={scene.client.identity.uri}"
    assert answer.echo["headers"]["x-forwarded-client-cert"] == [expected]


@pytest.mark.feature("N22")
def test_nothing_that_only_reads_as_who_called_goes_on(scene: Scene) -> None:
    """To a server that reads `_` for `-`. Other names with `_` are applications'."""
    names = taken_headers.lookalikes("x-forwarded-client-cert")
    lies = dict.fromkeys(names, "URI=spiffe://cluster.local/ns/other/sa/king")
    with scene.client.connect(WEB.addresses[0].address, 80) as sock:
        got = ask(sock, headers=lies | {"x_forwarded_for": "own"}).echo["headers"]
    assert got["x_forwarded_for"] == ["own"]
    assert not [each for each in got if each in lies]
    assert len(got["x-forwarded-client-cert"]) == 1 and "king" not in str(got)


def test_why_a_proxy_answered_is_no_clients_to_say(scene: Scene) -> None:
    got = scene.get(x_ambit_reason="denied", x_ambit_own="1").echo["headers"]
    assert [each for each in got if each.startswith("x-ambit")] == ["x-ambit-own"]


def test_a_pods_own_request_is_no_question_where_its_node_reads_it(scene: Scene, placement: str) -> None:
    """Waypoints in pods cannot tell: nodes ask in the names of pods."""
    names = [QUESTION, *taken_headers.lookalikes(QUESTION)]
    with scene.client.connect(WEB.addresses[0].address, 80) as sock:
        got = ask(sock, headers=dict.fromkeys(names, "1")).echo["headers"]
    assert [each for each in got if each in names] == ([] if placement == INLINE else names)


@BETWEEN
def test_the_pod_is_reached_as_the_waypoint(scene: Scene) -> None:
    scene.get()
    assert scene.get().echo["client"] == str(scene.waypoint.host.four)


def test_bytes_go_through_where_the_port_is_no_http(scene: Scene) -> None:
    assert scene.client.ask(WEB.addresses[0].address, TCP_PORT, b"12345").endswith(" 5")


def test_an_endpoint_without_a_tunnel_is_reached_plainly(scene: Scene) -> None:
    assert scene.get(to=OUTSIDE).server == "plain"


def test_a_service_without_endpoints_is_unavailable(scene: Scene) -> None:
    assert scene.get(to=EMPTY).status == 503


@BETWEEN
def test_what_is_not_bound_is_not_carried(scene: Scene) -> None:
    """The clients' node still believes that it is: the waypoint has the last word."""
    scene.waypoint.sync(Bound())
    assert scene.client.ask(WEB.addresses[0].address, TCP_PORT) == REFUSED
    scene.bind()
    assert scene.client.ask(WEB.addresses[0].address, TCP_PORT, b"123").endswith(" 3")


@BETWEEN
def test_envoy_accepts_every_kind_of_resource(scene: Scene) -> None:
    """What the golden files show. (Envoy 1.40 crashes when it *validates* what comes over ADS.)"""
    scene.waypoint.give(test_waypoint_golden.resources().values())


def test_a_connection_is_kept_for_several_requests(scene: Scene) -> None:
    with connection(scene.client.connect(WEB.addresses[0].address, 80), "web") as client:
        for number in range(3):
            client.request("GET", f"/{number}")
            assert json.loads(client.getresponse().read())["path"] == f"/{number}"


def test_a_connection_goes_on_while_ways_to_other_services_come_and_go(scene: Scene) -> None:
    """All ways are endpoints of one cluster."""
    with connection(scene.client.connect(WEB.addresses[0].address, 80), "web") as client:
        for number, bound in enumerate(((EMPTY, WEB), (WEB,), (WEB, OUTSIDE))):
            scene.waypoint.sync(Bound(bound))
            client.request("GET", f"/{number}")
            assert json.loads(client.getresponse().read())["path"] == f"/{number}"
    assert scene.get(to=OUTSIDE).server == "plain"
    assert scene.client.ask(EMPTY.addresses[0].address, 80) == REFUSED


def test_services_that_are_not_bound_need_no_waypoint(scene: Scene) -> None:
    answer = scene.get(to=V1)
    assert answer.echo["client"] == str(scene.client.four)


@pytest.fixture(params=["v1", "plain"])
def workload(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Workload]:
    yield from scene.bind_workload(request.param)


@BY_ADDRESS
def test_requests_to_a_pods_own_address_go_through(scene: Scene, workload: Workload) -> None:
    answer = scene.get(to=workload, port=TARGET)
    assert (answer.server, answer.echo["client"]) == (workload.name, str(scene.waypoint.host.four))
    said = f"By={IDENTITY.uri};URI={scene.client.identity.uri}"
    assert answer.echo["headers"]["x-forwarded-client-cert"] == [said]


@BY_ADDRESS
def test_bytes_to_a_pods_own_address_go_through(scene: Scene, workload: Workload) -> None:
    """Whatever the port, in both families."""
    for address in workload.addresses:
        said = scene.client.ask(address, 9001, b"1234")
        assert said == f"{scene.waypoint.host.four if address.version == 4 else scene.waypoint.host.six} 4"


@BY_ADDRESS
@pytest.mark.parametrize(
    ("authority", "status"),
    [
        ("{pod}:8080", "200"),
        ("{pod}:9001", "200"),
        ("{pod}:08080", "400"),
        ("{pod}:", "404"),
        ("{pod}:8080x", "400"),
        ("10.96.1.1:80", "200"),
        ("web.default.svc.cluster.local:80", "200"),
        ("WEB.default.svc.cluster.local:80", "200"),
        ("10.96.1.1:080", "404"),
        ("10.96.1.1:83", "404"),
        ("10.96.1.2:80", "404"),
        ("127.0.0.1:15000", "404"),
    ],
)
def test_what_a_tunnel_may_be_for(scene: Scene, authority: str, status: str) -> None:
    """Asked by hand, with a certificate of the mesh."""
    for pod in scene.bind_workload("v1"):
        made = hbone.context(scene.mesh.authority, "spiffe://cluster.local/ns/other/sa/anybody", server=False)
        client = hbone.Client(scene.outside.connect(scene.waypoint.host.four, hbone.PORT), made)
        stream = client.request(authority.format(pod=pod.addresses[0]))
        assert client.answered(stream).status == status
        client.close()
