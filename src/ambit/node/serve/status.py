"""What `ambit node status` and `ambit ps` show of a node, as one value."""

import msgspec

from ambit.agent.supervise.generation import Generation
from ambit.node.process import NodeAgent
from ambit.node.serve.settings_view import SettingsView, settings_view
from ambit.node.serve.udp import Udp, udp_of
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE


class EnvoyView(msgspec.Struct, frozen=True, rename="camel"):
    state: str
    pid: int | None
    epoch: int | None
    threads: int | None
    outdated: bool
    older_pid: int | None
    older_connections: int | None
    crashes: int
    problem: str


class PodView(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str
    name: str
    uid: str
    identity: str
    addresses: tuple[str, ...]
    udp: Udp


class NodeView(msgspec.Struct, frozen=True, rename="camel"):
    node: str
    ready: bool
    missing: tuple[str, ...]
    control_plane: str
    connected: bool
    problem: str
    workloads: int
    policies: int
    envoy: EnvoyView
    rejections: dict[str, str]
    destinations: int
    capped: tuple[str, ...]
    pods: tuple[PodView, ...]
    cut: int
    unstored: str
    settings: SettingsView


async def node_view(agent: NodeAgent) -> NodeView:
    """The state of this moment; Envoy is asked how many connections an older generation holds."""
    envoy = await agent.supervisor.refresh()
    pods = tuple(agent.configuration.pods)
    udp = await udp_of(pods)
    missing = tuple(agent.unready())
    return NodeView(
        node=agent.settings.node,
        ready=not missing,
        missing=missing,
        control_plane=agent.settings.control,
        connected=agent.subscription.stream.connected,
        problem=agent.subscription.stream.problem,
        workloads=agent.state.count(ADDRESS_TYPE),
        policies=agent.state.count(AUTHORIZATION_TYPE),
        envoy=EnvoyView(
            state=envoy.state.value,
            pid=_pid(envoy.current),
            epoch=envoy.current.epoch if envoy.current is not None else None,
            threads=envoy.current.concurrency if envoy.current is not None else None,
            outdated=envoy.is_outdated,
            older_pid=_pid(envoy.older),
            older_connections=envoy.older_connections,
            crashes=envoy.crashes,
            problem=envoy.problem,
        ),
        rejections=agent.server.rejections,
        destinations=len(agent.configuration.destinations),
        capped=tuple(sorted(agent.configuration.destinations.capped)),
        pods=tuple(
            PodView(
                pod.namespace,
                pod.name,
                pod.uid,
                pod.identity.uri,
                tuple(str(address) for address in pod.addresses),
                udp.get(pod.key, Udp()),
            )
            for pod in pods
        ),
        cut=agent.cut,
        unstored=agent.state.unstored,
        settings=settings_view(agent),
    )


def _pid(generation: Generation | None) -> int | None:
    return generation.pid if generation is not None else None
