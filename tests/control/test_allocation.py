"""Addresses of ServiceEntries' hosts are written by a whole control plane, on our API server."""

from typing import Any

from ambit.kube.resource import SERVICE_ENTRIES
from ambit.xds.messages import ADDRESS_TYPE, from_resource
from tests.control.test_process import agent_token, client, eventually, running  # noqa: F401 - a fixture
from tests.control.world import Ztunnel

ENTRY: dict[str, Any] = {
    "metadata": {"name": "outside", "namespace": "shop"},
    "spec": {
        "hosts": ["db.outside.example", "*.wild.example"],
        "ports": [{"number": 80, "name": "http", "protocol": "TCP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "192.0.2.7"}],
    },
}


async def addresses(api, name="outside"):
    """What its status says: host and value."""
    entry = await api.get(SERVICE_ENTRIES, name, "shop")
    found = (entry.get("status") or {}).get("addresses") or ()
    return [(each["host"], each["value"]) for each in found]


async def test_hosts_get_addresses_and_nodes_hear_of_them(client):  # noqa: F811
    token = await agent_token(client)
    async with running(client) as plane, Ztunnel(plane, token).connected() as node:
        await client.create(SERVICE_ENTRIES, ENTRY)
        found = await eventually(lambda: addresses(client))
        assert [host for host, _ in found] == ["db.outside.example"] * 2 + ["*.wild.example"] * 2
        assert [value.split(".")[:2] for _, value in found[::2]] == [["240", "240"]] * 2
        assert all(value.startswith("2001:2:0:") for _, value in found[1::2])
        told: dict[str, list[str]] = {}
        while sorted(map(len, told.values())) != [2, 2]:
            for resource in (await node.receive()).resources:
                if resource.name.startswith("shop/") and "." in resource.name and "//" not in resource.name:
                    service = from_resource(ADDRESS_TYPE, resource)
                    told[service.hostname] = [str(virtual.address) for virtual in service.addresses]
        assert sorted(told["db.outside.example"]) == sorted(value for _, value in found[:2])


async def test_they_are_taken_back_when_the_entry_brings_its_own(client):  # noqa: F811
    async with running(client):
        await client.create(SERVICE_ENTRIES, ENTRY)
        before = await eventually(lambda: addresses(client))
        own = {"spec": {"addresses": ["10.9.9.9"]}}
        await client.patch(SERVICE_ENTRIES, "outside", own, "shop")
        await eventually(lambda: addresses(client), lambda found: not found)
        await client.patch(SERVICE_ENTRIES, "outside", {"spec": {"addresses": None}}, "shop")
        assert await eventually(lambda: addresses(client)) == before


async def test_they_outlive_the_control_plane_and_others_are_corrected(client):  # noqa: F811
    async with running(client):
        await client.create(SERVICE_ENTRIES, ENTRY)
        before = await eventually(lambda: addresses(client))
    copied = {
        "metadata": {"name": "copy", "namespace": "shop"},
        "spec": {**ENTRY["spec"], "hosts": ["copy.example"]},
    }
    await client.create(SERVICE_ENTRIES, copied)
    status = {"addresses": [{"host": "copy.example", "value": value} for _, value in before[:2]]}
    await client.patch(SERVICE_ENTRIES, "copy", {"status": status}, "shop", subresource="status")
    async with running(client):

        async def both():
            return [value for name in ("copy", "outside") for _, value in await addresses(client, name)]

        await eventually(both, lambda found: len(set(found)) == len(found) == 6)
        # Made in the same second they are of one age, and "copy" comes first by name.
        kept = "copy" if await same_second(client) else "outside"
        assert {value for _, value in before[:2]} <= {value for _, value in await addresses(client, kept)}


async def same_second(api):
    made = [await api.get(SERVICE_ENTRIES, name, "shop") for name in ("copy", "outside")]
    return made[0]["metadata"]["creationTimestamp"] == made[1]["metadata"]["creationTimestamp"]
