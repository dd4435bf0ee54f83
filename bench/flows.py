"""What one ended connection costs the node agent: decision record, metrics and access-log line.

Entries as Envoy sends them, many in one message, against a state file with both ends in it.
"""

import ipaddress
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envoy.data.accesslog.v3 import accesslog_pb2 as log
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage

from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.workload import TunnelProtocol, Workload
from ambit.node.flows.access_line import access_line
from ambit.node.flows.collector import Collector
from ambit.node.flows.entry import TUNNEL
from ambit.node.state.mesh import MeshState
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from ambit.xds.messages import ADDRESS_TYPE, to_resource
from bench.harness import Number, Options, summary

ENTRIES = 20
"""In one message: Envoy sends what 16 KiB or a quarter of a second held."""
MESSAGES = 100
ROUNDS = 7


async def measure(options: Options) -> list[Number]:
    """The target is the design's: 5,000 connections a second for a tenth of a core."""
    client, server = _workload("client", "10.0.0.1"), _workload("server", "10.0.0.2")
    numbers = []
    with tempfile.TemporaryDirectory() as directory:
        state = MeshState(Path(directory) / "state.sqlite")
        state.apply(ADDRESS_TYPE, [to_resource(client), to_resource(server)], [])
        for name, kind, message, pod in (
            ("outbound", names.LOG_OUTBOUND, _outbound(client, server), client),
            ("inbound", names.LOG_INBOUND, _inbound(client, server), server),
        ):
            table = LocalPods([_local(pod)])
            lines: list[str] = []
            collector = Collector(
                state,
                lambda table=table: table,  # type: ignore[misc]
                NodeSettings(node="node1"),
                lambda flow, lines=lines: lines.append(access_line(flow)),  # type: ignore[misc]
            )
            times = [_one(lambda c=collector, k=kind, m=message: c.take(k, m)) for _ in range(ROUNDS)]  # type: ignore[misc]
            assert len(lines) == ROUNDS * MESSAGES * ENTRIES
            numbers.append(summary(f"agent, one {name} connection", times, "us", 20.0))
        state.close()
    return numbers


def _one(take: Callable[[], None]) -> float:
    """Microseconds of processor time for each entry."""
    began = time.process_time()
    for _ in range(MESSAGES):
        take()
    return (time.process_time() - began) * 1e6 / (MESSAGES * ENTRIES)


def _workload(name: str, address: str) -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/default/{name}",
        name=name,
        namespace="default",
        identity=Identity("cluster.local", "default", name),
        addresses=(ipaddress.ip_address(address),),
        tunnel=TunnelProtocol.HBONE,
        canonical_name=name,
        canonical_revision="v1",
        workload_name=name,
        cluster_id="Kubernetes",
    )


def _local(value: Workload) -> LocalPod:
    return LocalPod(
        f"uid-{value.name}",
        value.namespace,
        value.name,
        f"s-{value.name}",
        value.identity,
        value.addresses,
        f"/run/netns/{value.name}",
    )


def _address(address: object, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": str(address), "port_value": port}}


def _common(pod: Workload, number: int, kind: int, **fields: Any) -> log.AccessLogCommon:
    fields.setdefault("custom_tags", {})["pod"] = _local(pod).key
    return log.AccessLogCommon(
        start_time={"seconds": 1_800_000_000, "nanos": number * 1000},
        duration={"nanos": 12_000_000},
        access_log_type=kind,
        **fields,
    )


def _outbound(client: Workload, server: Workload) -> bytes:
    tags = {
        "host.route": TUNNEL,
        "host.workload": server.uid,
        "host.identity": server.identity.uri,
        "host.target": f"{server.addresses[0]}:8080",
    }
    entries = [
        log.TCPAccessLogEntry(
            common_properties=_common(
                client,
                number,
                log.TcpConnectionEnd,
                downstream_remote_address=_address(client.addresses[0], 40000 + number),
                downstream_local_address=_address(server.addresses[0], 8080),
                custom_tags=dict(tags),
            ),
            connection_properties={"received_bytes": 100, "sent_bytes": 200},
        )
        for number in range(ENTRIES)
    ]
    return bytes(StreamAccessLogsMessage(tcp_logs={"log_entry": entries}).SerializeToString())


def _inbound(client: Workload, server: Workload) -> bytes:
    entries = []
    for number in range(ENTRIES):
        common = _common(
            server,
            number,
            log.DownstreamEnd,
            downstream_direct_remote_address=_address(client.addresses[0], 40000 + number),
            tls_properties={
                "peer_certificate_properties": {"subject_alt_name": [{"uri": client.identity.uri}]}
            },
        )
        rbac = {"enforced_effective_policy_id": "default/allow", "enforced_engine_result": "allowed"}
        common.metadata.filter_metadata["envoy.filters.http.rbac"].update(rbac)
        entries.append(
            log.HTTPAccessLogEntry(
                common_properties=common,
                request={"authority": f"{server.addresses[0]}:8080", "request_body_bytes": 100},
                response={"response_code": {"value": 200}, "response_body_bytes": 200},
            )
        )
    return bytes(StreamAccessLogsMessage(http_logs={"log_entry": entries}).SerializeToString())
