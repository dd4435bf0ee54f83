"""The settings that an agent runs with, as its dump and its status tell them: made once for all nodes, in the
DaemonSet, and the same on each node that has been rolled since."""

import logging

import msgspec

from ambit.node.process import NodeAgent


class SettingsView(msgspec.Struct, frozen=True, rename="camel"):
    """The first ones have the names that ztunnel's dump gives them. `num_worker_threads` is how many Envoy is started
    with; one that took over from an Envoy with more has as many as that. Durations are in seconds."""

    local_node: str
    cluster_id: str
    cluster_domain: str
    network: str
    xds_address: str
    num_worker_threads: int
    dns_proxy: bool
    trust_domain: str
    trust_domain_aliases: tuple[str, ...]
    max_drain: int
    capture: str
    same_node_tls: bool
    dns_timeout: float
    reconcile: bool
    access_log: bool
    log_format: str
    log_level: str


def settings_view(agent: NodeAgent) -> SettingsView:
    """Those of this process."""
    given = agent.settings
    return SettingsView(
        local_node=given.node,
        cluster_id=given.cluster_id,
        cluster_domain=given.cluster_domain,
        network=given.network,
        xds_address=given.control,
        num_worker_threads=agent.supervisor.spec.concurrency,
        dns_proxy=given.dns_capture,
        trust_domain=given.trust_domain,
        trust_domain_aliases=given.trust_domain_aliases,
        max_drain=given.max_drain,
        capture=given.capture,
        same_node_tls=given.same_node_tls,
        dns_timeout=given.dns_timeout,
        reconcile=given.reconcile,
        access_log=given.access_log,
        log_format="json" if given.log_as_json else "plain",
        log_level=logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower(),
    )
