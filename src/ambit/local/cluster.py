"""The cluster process: API server, controllers, pod runner, Service addresses and cluster DNS on one event loop.

It lives in the fabric's network namespace. It may die at any time: everything it needs is on disk, in pinned
namespaces and in the pods' shims, and its successor adopts them.
"""

import asyncio
import logging
import os
import signal
import socket
import sys

from ambit.core.errors import AmbitError
from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists
from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.config import ClusterConfig, read_config
from ambit.local.controllers.run import run_controllers
from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.cluster_dns import ClusterDns
from ambit.local.fabric.load_balancer import LoadBalancerController
from ambit.local.fabric.network import NetnsFabric
from ambit.local.fabric.service_proxy import ServiceProxy
from ambit.local.forward.controller import ForwardController
from ambit.local.layout import API_PORT, FABRIC_V4, RUN, StateDirectory
from ambit.local.pods.runner import PodRunner
from ambit.local.system import KINDS, system_objects

API_SOCKET = RUN / "api.sock"
log = logging.getLogger(__name__)


async def run_cluster(state: StateDirectory) -> None:
    """Run until SIGTERM. Raises AmbitError when the kernel or the disk refuses something essential."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    config = read_config(state)
    fabric = NetnsFabric(config.node_addresses)
    fabric.join()
    listeners = [_inherited_listener(), _fabric_listener()]
    await fabric.prepare()
    client = Client.over_unix(API_SOCKET)
    runner = PodRunner(client, fabric, state, config.node_addresses, config.topology)
    bundles = (f"gateway-{config.gateway_api}", "istio")
    server = ApiServer(ApiSettings(state.pki, state.database, bundles), runner.streams)
    await server.start(listeners, API_SOCKET)
    write_kubeconfig(
        state.kubeconfig,
        server.credentials,
        f"https://127.0.0.1:{listeners[0].getsockname()[1]}",
        config.name,
    )
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    catalog = ServiceCatalog(client)
    async with client, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work)
            for work in (
                run_controllers(client, cluster_ca=server.credentials.authority_pem),
                create_system(client, config, state),
                runner.run(),
                catalog.run(),
                ServiceProxy(catalog, config.node_addresses).run(),
                ClusterDns(client, catalog, FABRIC_V4.ip).run(),
                LoadBalancerController(client, catalog).run(),
                ForwardController(client, catalog, state).run(),
            )
        ]
        await stopping.wait()
        for task in tasks:
            task.cancel()
    await server.stop()


async def create_system(client: Client, config: ClusterConfig, state: StateDirectory) -> None:
    """Create the mesh's own parts that do not exist yet; what a user changed stays."""
    for value in system_objects(config, state):
        try:
            await client.create(KINDS[value["kind"]], value)
        except AlreadyExists:
            continue
        except AmbitError as problem:
            log.warning("cannot create %s %s: %s", value["kind"], value["metadata"]["name"], problem.message)


def _inherited_listener() -> socket.socket:
    """The API server's socket on the host's loopback, opened before the namespaces were made."""
    return socket.socket(fileno=int(os.environ["AMBIT_API_FD"]))


def _fabric_listener() -> socket.socket:
    """The API server's socket for pods. The address comes up with the fabric, hence IP_FREEBIND."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_IP, 15, 1)
    listener.bind((str(FABRIC_V4.ip), API_PORT))
    listener.listen(128)
    return listener
