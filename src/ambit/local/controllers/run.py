"""Starts all controllers of the local cluster over one client and one set of shared caches."""

import asyncio
from collections.abc import Sequence

from ambit.kube.client import Client
from ambit.local import layout
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import forever
from ambit.local.controllers.cron_job import CronJobController
from ambit.local.controllers.daemon_set import DaemonSetController
from ambit.local.controllers.deployment import DeploymentController
from ambit.local.controllers.endpoint_slice import EndpointSliceController
from ambit.local.controllers.garbage import GarbageCollector
from ambit.local.controllers.job import JobController
from ambit.local.controllers.kubernetes_service import publish_api_server
from ambit.local.controllers.namespace import NamespaceController
from ambit.local.controllers.pod_collector import PodCollector
from ambit.local.controllers.replica_set import ReplicaSetController
from ambit.local.controllers.scheduler import Scheduler
from ambit.local.controllers.stateful_set import StatefulSetController


async def run_controllers(
    client: Client,
    *,
    cluster_ca: str,
    api_addresses: Sequence[str] = (str(layout.FABRIC_V4.ip),),
    api_port: int = layout.API_PORT,
    kubernetes_service: str = str(layout.KUBERNETES_SERVICE),
) -> None:
    """Run every controller until cancelled.

    `cluster_ca` is the PEM of the API server's authority, for each namespace's `kube-root-ca.crt`; the
    rest says where pods reach the API server.
    """
    caches = Caches(client)
    controllers = (
        NamespaceController(caches, cluster_ca),
        DeploymentController(caches),
        ReplicaSetController(caches),
        DaemonSetController(caches),
        StatefulSetController(caches),
        JobController(caches),
        CronJobController(caches),
        PodCollector(caches),
        Scheduler(caches),
        EndpointSliceController(caches),
    )
    collector = GarbageCollector(caches)
    async with asyncio.TaskGroup() as group:
        group.create_task(publish_api_server(client, api_addresses, api_port, kubernetes_service))
        group.create_task(caches.run())
        group.create_task(forever(*controllers))
        group.create_task(collector.run())
