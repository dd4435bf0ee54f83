"""What one ended connection costs the node agent: decision record, metrics and access-log line.

Lines as Envoy 1.40 posts them, many in one message, against a state file with both ends in it. Warm: message after
message. Cold: as in a running node, where other programs use the caches between two messages.
"""

import ipaddress
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.logs import access_log
from ambit.model.workload import TunnelProtocol, Workload
from ambit.node.flows.collector import Collector
from ambit.node.state.mesh import MeshState
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from ambit.xds.messages import ADDRESS_TYPE, to_resource
from ambit.xds.protos import logs_pb2
from bench.harness import Number, Options, summary

LINES = 100
"""In one message: what half a second holds at 200 connections a second."""
MESSAGES = 20
ROUNDS = 5
SPOIL = 32 << 20
"""Bytes that are copied between two messages where caches are to be cold: more than they hold."""
AT, SHARE = 5_000, 0.1
"""Connections a second, and the part of a core that their records may take: the design's."""
TARGET = 10.0
"""Microseconds: half of what that leaves to a connection, for each side."""
_SERVER = {
    access_log.WORKLOAD: "Kubernetes//Pod/default/server",
    access_log.IDENTITY: "spiffe://cluster.local/ns/default/sa/server",
}
OUTBOUND = {
    "pod": "default/client/s-client",
    "type": "TcpConnectionEnd",
    "client": "10.0.0.1",
    "destination": "10.0.0.2:8080",
    **_SERVER,
    **{access_log.HOST + key: value for key, value in _SERVER.items()},
    access_log.HOST + access_log.ROUTE: "tunnel",
    access_log.HOST + access_log.TARGET: "10.0.0.2:8080",
}
INBOUND = {
    "pod": "default/server/s-server",
    "type": "DownstreamEnd",
    "client": "10.0.0.1",
    "status": "200",
    access_log.POLICY: "default",
    access_log.IDENTITY: "spiffe://cluster.local/ns/default/sa/client",
    "authority": "10.0.0.2:8080",
    access_log.BAGGAGE: "k8s.namespace.name=default,k8s.deployment.name=client,service.name=client,service.version=v1",
}
REQUEST = (
    '\n00-0123456789abc1800000000123456789-1234567890000001-00\nfor="10.0.0.1:40000";host=server.default'
)
"""What an inbound line ends with."""
_STARTED = 1_800_000_000


async def measure(options: Options) -> list[Number]:
    """Processor time for each connection, both sides."""
    client, server = _workload("client", "10.0.0.1"), _workload("server", "10.0.0.2")
    numbers = []
    with tempfile.TemporaryDirectory() as directory:
        state = MeshState(Path(directory) / "state.sqlite")
        state.apply(ADDRESS_TYPE, [to_resource(client), to_resource(server)], [])
        table = LocalPods([_local(client), _local(server)])
        for name, kind, fields, request in (
            ("outbound", names.LOG_OUTBOUND, OUTBOUND, ""),
            ("inbound", names.LOG_INBOUND, INBOUND, REQUEST),
        ):
            for caches in ("warm", "cold"):
                lines: list[str] = []
                collector = Collector(state, lambda: table, NodeSettings(node="node1"), lines.extend)
                message = _message(kind, fields, request)
                spoil = SPOIL if caches == "cold" else 0
                times = [_one(lambda c=collector, m=message: c.take(m), spoil) for _ in range(ROUNDS)]  # type: ignore[misc]
                assert len(lines) == ROUNDS * MESSAGES * LINES
                assert not any(flow.failed for flow in collector.newest())
                numbers.append(summary(f"agent, one {name} connection, {caches}", times, "us", TARGET))
        state.close()
    cold = sum(number.value for number in numbers if number.name.endswith("cold"))
    share = Number(f"both sides at {AT:,} connections a second, of a core", AT * cold / 1e6, "", SHARE)
    return [*numbers, share]


def _one(take: Callable[[], None], spoil: int) -> float:
    """Microseconds of processor time for each line."""
    used = 0.0
    source, target = bytes(spoil), bytearray(spoil)
    for _ in range(MESSAGES):
        target[:] = source
        began = time.process_time()
        take()
        used += time.process_time() - began
    return used * 1e6 / (MESSAGES * LINES)


def _message(kind: str, fields: Mapping[str, str], request: str) -> bytes:
    layout = [key for key in access_log.LAYOUTS[kind] if key not in access_log.NUMBERS]
    assert set(fields) <= set(layout), fields
    about = "\t".join((kind, *(fields.get(key, access_log.UNKNOWN) for key in layout))) + request
    records = [
        logs_pb2.Record(
            time_unix_nano=_STARTED * 10**9 + number,
            body=logs_pb2.Text(value=f"{_STARTED}.012000\t{40000 + number}\t147\t189\t{about}".encode()),
        )
        for number in range(LINES)
    ]
    return logs_pb2.Export(
        resources=[logs_pb2.Resource(scopes=[logs_pb2.Scope(records=records)])]
    ).SerializeToString()


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
