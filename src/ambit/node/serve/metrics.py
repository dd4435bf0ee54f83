"""`:15020/metrics`: Istio's TCP metrics, the agent's own, and what Envoy says about itself. Pure text."""

from collections.abc import Iterable, Iterator, Mapping

from ambit.agent import connection_metrics as tcp
from ambit.agent.series import UNKNOWN
from ambit.node.enrol.names import DURATIONS, Asked, Question
from ambit.node.process import NodeAgent
from ambit.node.serve.udp import Udp
from ambit.plan.values import LocalPod
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE


def render(agent: NodeAgent, version: str) -> Iterator[str]:
    """Lines of the Prometheus text format."""
    yield from tcp.render(agent.flows.counters)
    if agent.flows.requests is not None:
        yield from agent.flows.requests.render()
    yield from _gauge("istio_build", "Component build info", 1, component="ztunnel", tag=version)
    status = agent.supervisor.status
    gauges = {
        "workload_manager_active_proxy_count": (
            "Pods in the mesh on this node",
            len(agent.enroller.sandboxes) - agent.enroller.pending,
        ),
        "workload_manager_pending_proxy_count": ("Pods that are being captured", agent.enroller.pending),
        "ambit_node_ready": ("Whether the node serves new pods", int(not agent.unready())),
        "ambit_control_plane_connected": (
            "Whether the control plane answers",
            int(agent.subscription.stream.connected),
        ),
        "ambit_workloads": ("Workloads and services known", agent.state.count(ADDRESS_TYPE)),
        "ambit_policies": ("Policies known", agent.state.count(AUTHORIZATION_TYPE)),
        "ambit_destinations": ("Destinations that pods asked for", len(agent.configuration.destinations)),
        "ambit_destination_limit_reached": (
            "Pods at the limit of destinations",
            len(agent.configuration.destinations.capped),
        ),
        "ambit_refused_policies": (
            "Pods that accept no tunnel because Envoy refused their policy",
            len(agent.server.closed),
        ),
        "ambit_state_unstored": (
            "Whether changes are in memory only because the disk does not take them",
            int(bool(agent.state.unstored)),
        ),
        "ambit_envoy_generations": (
            "Envoy processes",
            sum(each is not None for each in (status.current, status.older)),
        ),
        "ambit_open_connections": ("Connections open for longer than a few seconds", len(agent.flows.open)),
        "ambit_metric_series": ("Label sets of the TCP metrics", len(agent.flows.counters)),
    }
    for name, (text, value) in gauges.items():
        yield from _gauge(name, text, value)
    name = "ambit_pre_mesh_connections"
    yield f"# HELP {name} Open connections older than their pod's enrolment, in plain text."
    yield f"# TYPE {name} gauge"
    for direction, found in (("inbound", agent.pre_mesh.inbound), ("outbound", agent.pre_mesh.outbound)):
        yield f'{name}{{direction="{direction}"}} {sum(found.values())}'
    counters = {
        "workload_manager_proxies_started": ("Pods that were captured", agent.enroller.started),
        "workload_manager_proxies_stopped": ("Captured pods that ended or left", agent.enroller.stopped),
        "ambit_envoy_crashes": ("Times Envoy ended unexpectedly", status.crashes),
        "ambit_connections_cut": ("Connections ended by a policy change", agent.cut),
        "ambit_connections_shed": (
            "Connections ended because Envoy was short of memory",
            agent.load_shedder.ended,
        ),
        "ambit_configuration_rejected": ("Changes refused here or by Envoy", agent.subscription.rejections),
    }
    for name, (text, value) in counters.items():
        yield f"# HELP {name}_total {text}."
        yield f"# TYPE {name}_total counter"
        yield f"{name}_total {value}"
    yield from _certificates(agent)
    upstream = agent.subscription.stream
    yield from _counted("istio_xds_message", "Messages of the control plane", "url", upstream.messages)
    yield from _counted(
        "istio_xds_message_bytes", "Bytes of messages of the control plane", "url", upstream.message_bytes
    )
    yield from _counted(
        "istio_xds_connection_terminations",
        "Streams from the control plane that ended",
        "reason",
        upstream.terminations,
    )
    yield from dns(agent.names.queries)


def udp(pods: Iterable[LocalPod], found: Mapping[str, Udp]) -> Iterator[str]:
    """What passed beside the mesh, by pod."""
    for name, text in (
        ("ambit_udp_packets", "UDP packets other than DNS"),
        ("ambit_udp_bytes", "Bytes of UDP packets other than DNS, with their IP headers"),
    ):
        yield f"# HELP {name}_total {text}."
        yield f"# TYPE {name}_total counter"
        for pod in pods:
            counted = found.get(pod.key)
            if counted is None:
                continue
            for direction, count in (("sent", counted.sent), ("received", counted.received)):
                value = count.packets if name == "ambit_udp_packets" else count.bytes
                labels = f'direction="{direction}",pod_namespace="{pod.namespace}",pod_name="{pod.name}"'
                yield f"{name}_total{{{labels}}} {value}"


def _certificates(agent: NodeAgent) -> Iterator[str]:
    name = "ambit_certificate_expiry_seconds"
    yield f"# HELP {name} When the certificate ends, seconds since 1970."
    yield f"# TYPE {name} gauge"
    for each in agent.certificates.states():
        if each.certificate is not None:
            yield f'{name}{{identity="{each.identity}"}} {each.certificate.not_after:.0f}'


def _counted(name: str, text: str, label: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield f"# HELP {name}_total {text}."
    yield f"# TYPE {name}_total counter"
    yield from (f'{name}_total{{{label}="{value}"}} {count}' for value, count in counts.items())


def dns(queries: Mapping[Question, Asked]) -> Iterator[str]:
    """ztunnel's `istio_dns_*`: all questions, and those that went to a nameserver."""
    rows = [(_question(question), asked) for question, asked in queries.items()]
    for name, text, counts in (
        ("istio_dns_requests", "DNS questions of pods", [each.requests for _, each in rows]),
        (
            "istio_dns_upstream_requests",
            "DNS questions that were forwarded",
            [each.forwarded for _, each in rows],
        ),
        (
            "istio_dns_upstream_failures",
            "Forwarded DNS questions without answer",
            [each.failed for _, each in rows],
        ),
    ):
        yield f"# HELP {name}_total {text}."
        yield f"# TYPE {name}_total counter"
        yield from (
            f"{name}_total{{{labels}}} {count}" for (labels, _), count in zip(rows, counts, strict=True)
        )
    name = "istio_dns_upstream_request_duration_seconds"
    yield f"# HELP {name} How long forwarded DNS questions took."
    yield f"# TYPE {name} histogram"
    for labels, asked in rows:
        for most, count in zip((*DURATIONS, "+Inf"), (*asked.by_duration, asked.forwarded), strict=True):
            yield f'{name}_bucket{{{labels},le="{most}"}} {count}'
        yield f"{name}_sum{{{labels}}} {asked.seconds:.6f}"
        yield f"{name}_count{{{labels}}} {asked.forwarded}"


def _question(question: Question) -> str:
    return (
        f'request_query_type="{question.type}",request_protocol="{question.protocol}",'
        f'source_canonical_service="{question.canonical_service or UNKNOWN}",'
        f'source_canonical_revision="{question.canonical_revision or UNKNOWN}"'
    )


def _gauge(name: str, text: str, value: int, **labels: str) -> Iterator[str]:
    yield f"# HELP {name} {text}."
    yield f"# TYPE {name} gauge"
    shown = ",".join(f'{key}="{label}"' for key, label in labels.items())
    yield f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"
