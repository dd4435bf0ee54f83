"""The cluster's DNS server: what CoreDNS is elsewhere, behind the Service `kube-dns` in `kube-system`.

Names outside the cluster answer NXDOMAIN at once: from inside an instance there is no way to any other
network, so no nameserver could be asked and no answer could be used. A program then reports an unknown host
immediately instead of waiting for timeouts.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable
from pathlib import Path

from ambit.core.address import Address
from ambit.core.dns import MAX_TCP, Malformed, Query, Rcode, encode_reply, error_reply, parse_query
from ambit.core.errors import AmbitError
from ambit.kube.client import Client, Object
from ambit.kube.errors import AlreadyExists, NotFound
from ambit.kube.resource import ENDPOINT_SLICES, NAMESPACES, SERVICES, Resource
from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.dns_zone import Zone
from ambit.local.fabric.services import SERVICE_NAME_LABEL
from ambit.local.fabric.wiring import BRIDGE
from ambit.local.layout import DNS_SERVICE, FABRIC_V4, NETNS
from ambit.node.dns.server import DnsServer, listen
from ambit.node.netns.enter import in_namespace

log = logging.getLogger(__name__)

PORT = 53
NAMESPACE = "kube-system"
NAME = "kube-dns"
RETRY = 0.5
PATIENCE = 4.0
"""Seconds that a question waits for the names after a start; resolvers ask again after five."""


class ClusterDns:
    """Serves the catalog's names on one address of the fabric, port 53, UDP and TCP."""

    def __init__(
        self,
        client: Client,
        catalog: ServiceCatalog,
        address: Address = FABRIC_V4.ip,
        netns: Path = NETNS / BRIDGE,
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._address = address
        self._netns = netns
        self._zone: Zone | None = None

    async def run(self) -> None:
        """Serve, and keep the Service that leads here, until cancelled. Raises OSError: the port is taken."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.serve())
            group.create_task(publish_dns_service(self._client, str(self._address)))

    async def serve(self) -> None:
        """Answer until cancelled; questions wait for the first complete copy of the names."""
        self._catalog.subscribe(self._forget)
        udp, tcp = in_namespace(self._netns, lambda: listen([str(self._address)], PORT))
        server = DnsServer(self.handle, udp, tcp)
        await server.start()
        try:
            await asyncio.Event().wait()
        finally:
            await server.close()

    def handle(self, data: bytes, over_tcp: bool) -> bytes | Awaitable[bytes | None] | None:
        """The reply to these bytes, later while the names are not known; None when they deserve none."""
        try:
            query = parse_query(data)
        except Malformed:
            return error_reply(data, Rcode.FORMERR)
        if query.opcode != 0:
            return encode_reply(query, Rcode.NOTIMP)
        if query.edns_version != 0:
            return encode_reply(query, Rcode.BADVERS)
        if not self._catalog.is_synced:
            return self._answer_later(query, over_tcp)
        return self._answer(query, over_tcp)

    async def _answer_later(self, query: Query, over_tcp: bool) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._catalog.wait_synced()
        except TimeoutError:
            return encode_reply(query, Rcode.SERVFAIL)
        return self._answer(query, over_tcp)

    def _answer(self, query: Query, over_tcp: bool) -> bytes:
        if self._zone is None:
            self._zone = Zone(self._catalog.services, self._catalog.slices())
        reply = self._zone.answer(query)
        if reply is None:
            return encode_reply(query, Rcode.NXDOMAIN)
        answers = list(reply.answers)
        if len({record.type for record in answers}) == 1:
            random.shuffle(answers)
        try:
            return encode_reply(
                query,
                reply.rcode,
                answers,
                authorities=reply.authorities,
                additionals=reply.additionals,
                authoritative=True,
                limit=MAX_TCP if over_tcp else query.reply_limit,
            )
        except Malformed:
            return encode_reply(query, Rcode.SERVFAIL)

    def _forget(self) -> None:
        self._zone = None


async def publish_dns_service(
    client: Client, address: str = str(FABRIC_V4.ip), cluster_ip: str = str(DNS_SERVICE)
) -> None:
    """Make sure that the Service and its EndpointSlice exist; tried until it works."""
    while True:
        try:
            for resource, value in _objects(address, cluster_ip):
                await _ensure(client, resource, value)
        except AmbitError as error:
            log.debug("DNS service not published: %s", error)
            await asyncio.sleep(RETRY)
            continue
        return


async def _ensure(client: Client, resource: Resource, value: Object) -> None:
    name, namespace = value["metadata"]["name"], value["metadata"].get("namespace")
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        try:
            await client.create(resource, value)
        except AlreadyExists:
            return


def _objects(address: str, cluster_ip: str) -> list[tuple[Resource, Object]]:
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    service = {
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"k8s-app": NAME, "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": name, "port": PORT, "protocol": kind, "targetPort": PORT} for name, kind in ports
            ],
        },
    }
    endpoints = {
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {SERVICE_NAME_LABEL: NAME}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": PORT, "protocol": kind} for name, kind in ports],
    }
    return [
        (NAMESPACES, {"metadata": {"name": NAMESPACE}}),
        (SERVICES, service),
        (ENDPOINT_SLICES, endpoints),
    ]
