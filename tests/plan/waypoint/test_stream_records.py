"""What a waypoint tells of connections in which nobody reads requests."""

import time
from collections.abc import Callable

import msgspec
import pytest

from ambit.agent import connection_metrics
from ambit.agent.record import Flow, Reporter
from ambit.model.policy import Exact, ServiceAccountMatch
from ambit.model.request_policy import Attribute, RequestAction
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import IDENTITY, PROXY, TCP_PORT, WEB, Scene
from tests.plan.waypoint.placements import at_waypoints_only
from tests.plan.waypoint.test_authorization import enforce, is_served, one, policy, rule

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    at_waypoints_only("nodes tell of such connections as of any other"),
]

ALLOW, DENY = RequestAction.ALLOW, RequestAction.DENY
CLIENT = rule(one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("default", "client")))
OTHER = rule(one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("default", "other")))


def told(scene: Scene, ask: Callable[[], object]) -> Flow:
    """The record of the one connection that `ask` makes."""

    began = time.time() - 0.001

    def streams() -> list[Flow]:
        return [each for each in scene.waypoint.told() if each.request is None and each.time > began]

    ask()
    until(lambda: bool(streams()), "record of a connection")
    (one,) = streams()
    return one


def of_client(scene: Scene) -> Flow:
    return told(scene, lambda: is_served(scene.client))


def test_a_connection_has_both_ends(scene: Scene) -> None:
    enforce(scene)
    flow = of_client(scene)
    client, server = flow.source, flow.destination
    assert (flow.reporter, flow.proxy, flow.hop) == (Reporter.WAYPOINT, PROXY.key, "tunnel")
    assert (flow.decision, flow.policy, flow.error, flow.mutual_tls) == ("allow", "", "", True)
    assert (client.identity, client.workload_name) == (scene.client.identity.uri, "client-deployment")
    assert client.address.rpartition(":")[0] == str(scene.client.workload.addresses[0])
    assert (server.service, server.workload, server.address.rpartition(":")[2]) == (WEB.key, "v1", "9000")
    assert (flow.received, flow.sent > 0) == (3, True)
    with scene.waypoint.lock:
        lines = list(connection_metrics.render(scene.waypoint.requests.connections.series))
    assert any(
        each.startswith("istio_tcp_connections_closed_total{")
        and 'reporter="waypoint",source_workload="client-deployment"' in each
        and 'destination_service_name="web"' in each
        for each in lines
    )


def test_records_name_the_rule_that_decided(scene: Scene) -> None:
    for given, decision, name in (
        (policy(ALLOW, OTHER, CLIENT), "allow", "default/p[1]"),
        (policy(DENY, OTHER, CLIENT), "deny", "default/p[1]"),
        (policy(ALLOW, OTHER), "deny", "default/p"),
    ):
        enforce(scene, given)
        flow = of_client(scene)
        assert (flow.decision, flow.policy, flow.reporter) == (decision, name, Reporter.WAYPOINT), given
        assert flow.source.identity == scene.client.identity.uri
        assert flow.destination.service == WEB.key
        if decision == "deny":
            assert (flow.hop, flow.destination.address) == ("refused", f"{WEB.hostname}:{TCP_PORT}")


def test_a_dry_run_is_told_and_forbids_nothing(scene: Scene) -> None:
    never = policy(ALLOW, rule(one(Attribute.NAMESPACE, Exact("nobody"))))
    enforce(scene, msgspec.structs.replace(never, dry_run=True))
    flow = of_client(scene)
    assert (flow.decision, flow.dry_run) == ("allow", "default/p")
    assert IDENTITY.uri not in (flow.source.identity, flow.destination.identity)


def test_bytes_to_a_pods_own_address(scene: Scene) -> None:
    for pod in scene.bind_workload("v1"):
        address = pod.addresses[0]
        flow = told(scene, lambda address=address: scene.client.ask(address, 9000, b"123"))
        assert (flow.decision, flow.destination.workload, flow.destination.service) == ("allow", "v1", "")
        assert flow.destination.address == f"{address}:9000"
