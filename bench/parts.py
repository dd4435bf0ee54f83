"""What the parts of a service cost a waypoint's Envoy: its objects in memory with many services, by leaving parts out.

Envoy alone, with two workers, gets everything at once over its own protocol, as from its agent. Objects are what its
allocator counts (`/memory`), so they do not tell what that keeps besides; a run differs from the next by some 3 KiB.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.any_pb2 import Any

from ambit.agent.admin import Admin
from ambit.agent.binary import envoy_binary
from ambit.agent.envoy_server import EnvoyServer, framed
from ambit.core.errors import Unreachable
from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.envoy.words import AnyMessage
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import AppProtocol, Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.plan.l7 import waypoint
from ambit.plan.values import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    NodeSettings,
    PlannedResource,
    planned,
)
from bench.harness import Number, Options
from bench.instance import until

FEW, MANY = 20, 400
ORDER = (CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES)
PROXY = Proxy(
    "bench/way",
    ProxyKind.WAYPOINT,
    Identity("cluster.local", "bench", "way"),
    "way.bench.svc.cluster.local",
    ObjectRef("Gateway", "bench", "way"),
)
SETTLED, LOOK, PATIENCE = 64 << 10, 2.0, 180.0
"""Objects are counted when they have changed by fewer bytes within so many seconds."""
_Resources = Sequence[PlannedResource]


class _Memory(msgspec.Struct):
    allocated: str


async def measure(options: Options) -> list[Number]:
    """KiB for each service, and how much less without a part."""
    many = 100 if options.quick else MANY
    few = await _objects(_made(FEW))
    numbers = []
    usual = _made(many)
    whole = await _objects(usual)

    def each(objects: int, less: int) -> float:
        return (objects - less) / (many - FEW) / 1024

    numbers.append(Number(f"a service of {many:,}", each(whole, few), "KiB"))
    read_as_bytes = await _objects(_made(many, AppProtocol.TCP))
    numbers.append(Number("of it reading requests", each(whole, read_as_bytes), "KiB"))
    for name, without in PARTS.items():
        left = await _objects([kept for each in usual if (kept := without(each)) is not None])
        numbers.append(Number(f"of it {name}", each(whole, left), "KiB"))
    return numbers


def _made(count: int, protocol: AppProtocol = AppProtocol.HTTP11) -> _Resources:
    """As many services, each with an endpoint of its own."""
    services, workloads = [], []
    for number in range(count):
        host = f"app-{number}"
        service = Service(
            name=host,
            namespace="bench",
            hostname=f"{host}.bench.svc.cluster.local",
            addresses=(VirtualAddress("", ip_address(f"10.200.{number >> 8}.{number & 255}")),),
            ports=(Port(80, 8080),),
            app_protocols={80: protocol},
            canonical=True,
        )
        services.append(service)
        workloads.append(
            Workload(
                uid=f"Kubernetes//Pod/bench/{host}",
                name=host,
                namespace="bench",
                identity=Identity("cluster.local", "bench", "server"),
                addresses=(ip_address(f"10.1.{number >> 8}.{number & 255}"),),
                services={service.key: service.ports},
                tunnel=TunnelProtocol.HBONE,
                workload_name=host,
                canonical_name=host,
                canonical_revision="latest",
                cluster_id="Kubernetes",
            )
        )
    bound = waypoint.Bound(tuple(services))
    return waypoint.resources(PROXY, bound, Snapshot(workloads, services), NodeSettings(node=""))


def _is_of_service(each: PlannedResource, *types: str) -> bool:
    return each.type_url in types and each.name.startswith("svc|")


def _without_cluster(each: PlannedResource) -> PlannedResource | None:
    return None if _is_of_service(each, CLUSTER, ENDPOINTS) else each


def _without_endpoint(each: PlannedResource) -> PlannedResource | None:
    return None if each.type_url == ENDPOINTS and each.name == "into" else each


def _managed(change: Callable[[AnyMessage], None]) -> Callable[[PlannedResource], PlannedResource | None]:
    """What reads requests, changed."""

    def changed(each: PlannedResource) -> PlannedResource:
        if not _is_of_service(each, LISTENER):
            return each
        listener = listener_pb2.Listener()
        Any.FromString(each.body).Unpack(listener)
        manager, held = (
            http_connection_manager_pb2.HttpConnectionManager(),
            listener.filter_chains[0].filters[0].typed_config,
        )
        held.Unpack(manager)
        change(manager)
        held.Pack(manager)
        return planned(LISTENER, each.name, listener)

    return changed


def _without_records(manager: AnyMessage) -> None:
    del manager.access_log[:]


def _without_policies(manager: AnyMessage) -> None:
    kept = [each for each in manager.http_filters if not each.HasField("config_discovery")]
    del manager.http_filters[:]
    manager.http_filters.extend(kept)


def _without_table(manager: AnyMessage) -> None:
    manager.route_config.name = "none"


PARTS: dict[str, Callable[[PlannedResource], PlannedResource | None]] = {
    "records": _managed(_without_records),
    "policies that come separately": _managed(_without_policies),
    "a table that comes separately": _managed(_without_table),
    "the cluster of its endpoints, and them": _without_cluster,
    "the endpoint that leads into it": _without_endpoint,
}


async def _objects(resources: _Resources) -> int:
    """Bytes of objects of an Envoy that has these."""
    wanted = sum(each.type_url == LISTENER for each in resources)
    with tempfile.TemporaryDirectory(prefix="ambit-parts-") as name:
        directory = Path(name)
        server = EnvoyServer(directory / "xds.sock", lambda *_: None)
        await server.start()
        server.publish(framed(each) for kind in ORDER for each in resources if each.type_url == kind)
        bootstrap = directory / "bootstrap.pb"
        bootstrap.write_bytes(waypoint.bootstrap("parts", run=name))
        process = await asyncio.create_subprocess_exec(
            str(envoy_binary()),
            *("-c", str(bootstrap), "--concurrency", "2", "--disable-hot-restart", "--log-level", "off"),
        )
        try:
            return await _settled(Admin(directory / "admin.sock"), wanted)
        finally:
            process.terminate()
            await process.wait()
            await server.stop()


async def _settled(admin: Admin, listeners: int) -> int:
    """When it has as many listeners. The one of tunnels waits for a certificate, which nobody has here."""
    former = 0

    async def found() -> int:
        nonlocal former
        with contextlib.suppress(Unreachable):
            kinds = ("active", "warming")
            have = [await admin.stat(f"listener_manager.total_listeners_{each}") or 0 for each in kinds]
            now = int(msgspec.json.decode(await admin.get("/memory"), type=_Memory).allocated)
            before, former = former, now
            return now if sum(have) >= listeners and abs(now - before) < SETTLED else 0
        return 0

    return int(await until(f"Envoy has {listeners} listeners", found, PATIENCE, LOOK))
