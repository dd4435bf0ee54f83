"""From pod to pod of one node: policy is decided here, because source and destination are in the question."""

from ambit.core.address import Address
from ambit.envoy import clusters, names
from ambit.envoy.logs import access_log
from ambit.envoy.words import AnyMessage
from ambit.model.view import MeshView
from ambit.model.workload import Workload
from ambit.plan.endpoints import Choice, preferred_address
from ambit.plan.node import at_pod, ways
from ambit.plan.values import LocalPod, LocalPods, NodeSettings, is_of
from ambit.policy.decide import ConnectionFacts, Decision, rule_name


def answer(
    name: str,
    source: LocalPod,
    asked: names.Destination,
    workload: Workload,
    local: LocalPod,
    tags: dict[str, str],
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> AnyMessage:
    """Nobody gets to a port whose requests are to be read before they are. What reads them is imported then."""
    tags = {
        **tags,
        **tags_of(source, Choice(workload, asked.address, asked.port), local, view, settings),
    }
    if tags[access_log.ROUTE] == ways.REFUSED:
        return clusters.refused(name, tags)
    ruled = at_pod.ports_of(workload, view).get(asked.port)
    if ruled is not None and ruled.is_read and pods.is_unread(local, asked.port):
        return ways.refused(name, "requests to the pod are not read yet", tags)
    if ruled is not None and (ruled.is_read or (ruled.is_told and not pods.is_untold(local, asked.port))):
        from ambit.envoy.node import pod_requests

        reader = pod_requests.endpoint(local.key, asked.address, asked.port, source.identity.uri, tags)
        return clusters.balanced(name, [reader], tags)
    return clusters.inside(name, local.netns, tags)


def tags_of(
    source: LocalPod, choice: Choice, local: LocalPod, view: MeshView, settings: NodeSettings
) -> dict[str, str]:
    """Whether the connection goes on to `local`, and why (not)."""
    workload = choice.workload
    if not is_of(local, workload, settings):
        return {
            access_log.ROUTE: ways.REFUSED,
            access_log.REASON: f"the pod at {choice.address} is not {workload.uid}",
        }
    decision = _decide(source, choice.address, choice.port, workload, view)
    rule = rule_name(decision)
    policy = {access_log.POLICY: rule} if rule else {}
    if decision.allowed:
        return {access_log.ROUTE: ways.SAME_NODE, **policy}
    return {access_log.ROUTE: ways.REFUSED, access_log.REASON: decision.reason.value, **policy}


def _decide(source: LocalPod, address: Address, port: int, workload: Workload, view: MeshView) -> Decision:
    """Whether `source` may connect to `port` of `workload` on the same node."""
    client = preferred_address(source.addresses, address.version)
    assert client is not None, "a pod has an address"
    facts = ConnectionFacts(
        source=client, destination=address, destination_port=port, identity=source.identity
    )
    return at_pod.decide_here(workload, facts, view)
