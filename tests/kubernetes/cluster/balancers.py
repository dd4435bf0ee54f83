"""What a cloud does for Services of type LoadBalancer: the laptop's controller gives them addresses in this cluster.

Each node's kube-proxy translates them; from the control plane's side they are reached by way of the first node.
"""

import asyncio
import sys
from pathlib import Path

from ambit.kube.client import Client
from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.load_balancer import LoadBalancerController
from tests.kubernetes.cluster import processes
from tests.kubernetes.cluster.settings import Cluster

NAME = "balancers"


def start(cluster: Cluster) -> None:
    """Starts it; it runs until the cluster goes."""
    command = [*cluster.inside(), sys.executable, "-m", __name__, str(cluster.kubeconfig())]
    processes.record(cluster.state, NAME, processes.start(cluster.state, NAME, command).pid)


async def _run(kubeconfig: Path) -> None:
    async with Client.from_kubeconfig(kubeconfig) as client, asyncio.TaskGroup() as group:
        catalog = ServiceCatalog(client)
        group.create_task(catalog.run())
        group.create_task(LoadBalancerController(client, catalog).run())


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))
