"""The peer to compare with: a stock Envoy beside each of two pods, mutual TLS 1.3 between them, REDIRECT capture.

It is what a sidecar mesh does at the least: one filter per connection, one thread, no telemetry and no
authorization policy, so a real sidecar mesh is slower than this.

    app → 15001 (client's Envoy) ── mutual TLS ──> 15006 (server's Envoy) → app

Port 8080 is HTTP to both proxies (connections to the server's proxy are reused, as sidecar meshes do for HTTP
ports); 8081 and 5201 are opaque bytes, one TLS connection for each.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from bench.datapath.certificates import Leaf, leaves
from bench.instance import Instance, until
from bench.servers import BULK_PORT, HTTP_PORT, SECOND_HTTP_PORT, envoy_command, http_manager, typed

MARK = 0x539
OUTBOUND, INBOUND = 15001, 15006
PORTS = (HTTP_PORT, SECOND_HTTP_PORT, BULK_PORT)
TLS = "envoy.extensions.transport_sockets.tls.v3"
CAPTURE = f"""
table inet bench {{
  chain output {{
    type nat hook output priority -100
    meta mark {MARK} return
    oifname "lo" return
    meta l4proto tcp redirect to :{OUTBOUND}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    tcp dport {{ {", ".join(map(str, PORTS))} }} redirect to :{INBOUND}
  }}
}}
"""


@contextlib.asynccontextmanager
async def sidecars(mesh: Instance, client: str, server: str) -> AsyncIterator[tuple[int, ...]]:
    """Put an Envoy beside each of the two pods; gives the Envoys' process ids, and ends them afterwards."""
    ours, theirs = leaves("spiffe://bench/ns/sidecar/sa/client", "spiffe://bench/ns/sidecar/sa/server")
    configs = {
        client: _proxy(OUTBOUND, "UpstreamTlsContext", ours, theirs.identity),
        server: _proxy(INBOUND, "DownstreamTlsContext", theirs, ours.identity),
    }
    started: list[asyncio.subprocess.Process] = []
    try:
        for pod, config in configs.items():
            enter = _enter(mesh, _process_of(mesh, pod))
            started.append(await asyncio.create_subprocess_exec(*enter, *envoy_command(config)))
            await until(f"the sidecar of {pod} listens", lambda enter=enter: _listens(enter))  # type: ignore[misc]
            loading = await asyncio.create_subprocess_exec(
                *enter, "nft", "-f", "-", stdin=asyncio.subprocess.PIPE
            )
            await loading.communicate(CAPTURE.encode())
            if loading.returncode:
                raise RuntimeError(f"nft refused the capture rules in {pod}")
        yield tuple(process.pid for process in started)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _process_of(mesh: Instance, pod: str) -> int:
    """The host's number of any process of a pod, found by the HOSTNAME that every container has."""
    wanted = f"HOSTNAME={pod}".encode()
    for process in mesh.processes():
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    return process.pid
        except OSError:
            continue
    raise RuntimeError(f"no process of pod {pod}")


def _enter(mesh: Instance, pid: int) -> list[str]:
    own = [f"--target={mesh.record.supervisor.pid}", "--user", "--preserve-credentials"]
    return ["nsenter", *(own if mesh.record.rootless else ()), f"--net=/proc/{pid}/ns/net", "--"]


async def _listens(enter: list[str]) -> bool:
    process = await asyncio.create_subprocess_exec(
        *enter, "cat", "/proc/net/tcp", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return any(f":{port:04X} 00000000:0000 0A".encode() in output for port in (OUTBOUND, INBOUND))


def _proxy(port: int, context: str, own: Leaf, peer: str) -> dict[str, Any]:
    """TLS is on the listener when it accepts from the other Envoy, on the cluster when it connects to it."""
    tls = _tls(context, own, peer)
    accepts = context == "DownstreamTlsContext"
    chains = []
    for number in PORTS:
        if number == HTTP_PORT:
            proxy = http_manager(
                {"match": {"prefix": "/"}, "route": {"cluster": "on", "timeout": "0s"}},
                server_header_transformation="PASS_THROUGH",
            )
        else:
            proxy = typed(
                "envoy.filters.network.tcp_proxy",
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                stat_prefix="tcp",
                cluster="on",
            )
        chain: dict[str, Any] = {"filter_chain_match": {"destination_port": number}, "filters": [proxy]}
        chains.append({**chain, "transport_socket": tls} if accepts else chain)
    cluster: dict[str, Any] = {
        "name": "on",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "upstream_bind_config": {
            "source_address": {"address": "0.0.0.0", "port_value": 0},
            "socket_options": [
                {"level": 1, "name": 36, "int_value": MARK, "state": "STATE_PREBIND"}  # SOL_SOCKET, SO_MARK
            ],
        },
    }
    listener = {
        "name": "capture",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "listener_filters": [
            typed(
                "envoy.filters.listener.original_dst",
                "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            )
        ],
        "filter_chains": chains,
    }
    clusters = [cluster if accepts else {**cluster, "transport_socket": tls}]
    return {
        "node": {"id": own.identity, "cluster": "bench"},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _tls(context: str, own: Leaf, peer: str) -> dict[str, Any]:
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {"certificate_chain": {"inline_string": own.chain}, "private_key": {"inline_string": own.key}}
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": own.authority},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }
    fields: dict[str, Any] = {"common_tls_context": common}
    if context == "DownstreamTlsContext":
        fields["require_client_certificate"] = True
    return typed("envoy.transport_sockets.tls", f"{TLS}.{context}", **fields)
