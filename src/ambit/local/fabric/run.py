"""Everything that the fabric does with Services, as one task of the cluster process."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from ambit.kube.client import Client
from ambit.local.fabric.cluster_dns import ClusterDns, publish_dns_service
from ambit.local.fabric.service_proxy import ServiceProxy
from ambit.local.fabric.services import ServiceCatalog
from ambit.local.fabric.wiring import BRIDGE
from ambit.local.layout import NETNS, NodeAddresses


async def run_services(client: Client, nodes: Iterable[NodeAddresses], pins: Path = NETNS) -> None:
    """Service addresses and cluster DNS for a prepared fabric, over one pair of watches, until cancelled."""
    catalog = ServiceCatalog(client)
    async with asyncio.TaskGroup() as group:
        group.create_task(ServiceProxy(catalog, nodes, pins).run())
        group.create_task(ClusterDns(catalog, pins / BRIDGE).run())
        group.create_task(publish_dns_service(client))
        group.create_task(catalog.run())
