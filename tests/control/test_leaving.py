"""Nodes hear of a pod's end from the pod itself: nobody has to take it out of an EndpointSlice first."""

from bench.control.objects import pod_name

from ambit.kube import resource as kinds
from ambit.model.workload import Workload, WorkloadStatus
from ambit.xds import wire
from ambit.xds.messages import from_resource
from tests.control.plane import PATIENCE, SIZE, running

GRACE = 1000
"""Seconds: far more than the test takes, so the pod is there to its end."""


def statuses(agent, name):
    """What a node was told of a pod's health, in order."""
    found = []
    for _, message in agent.kept:
        response = wire.decode_response(message)
        values = (from_resource(response.type_url, each) for each in response.resources)
        found += [each.status for each in values if isinstance(each, Workload) and each.name == name]
    return found


async def test_a_pod_that_is_being_deleted_leaves_its_services_at_once(tmp_path):
    """No controller runs here: the pod's deletionTimestamp is all that changes."""
    async with running(tmp_path) as (_, client, agents):
        space, name = pod_name(SIZE, 7)
        agents.forget()
        await client.delete(kinds.PODS, name, space, grace_period=GRACE)
        leaves = [WorkloadStatus.UNHEALTHY]
        await agents.until(
            lambda: all(statuses(each, name) for each in agents.all), PATIENCE, "the pod's end"
        )
        assert [statuses(each, name) for each in agents.all] == [leaves] * SIZE.nodes
        left = await client.get(kinds.PODS, name, space)
        assert left["metadata"]["deletionGracePeriodSeconds"] == GRACE
        assert agents.refused == 0
