"""Lists that commands keep in ConfigMaps of the system namespace, for the cluster process to obey."""

from typing import Any

import yaml

from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import CONFIG_MAPS

Entries = list[dict[str, Any]]


async def read_entries(client: Client, config_map: str, key: str) -> Entries:
    """The list under `key`; empty when the ConfigMap is not there."""
    try:
        found = await client.get(CONFIG_MAPS, config_map, SYSTEM_NAMESPACE)
    except NotFound:
        return []
    entries = yaml.safe_load(found.get("data", {}).get(key, "")) or []
    assert isinstance(entries, list)
    return entries


async def write_entries(client: Client, config_map: str, key: str, entries: Entries) -> None:
    """Replace the list, or create the ConfigMap with it."""
    value = {
        "metadata": {"name": config_map, "namespace": SYSTEM_NAMESPACE},
        "data": {key: yaml.safe_dump(entries, sort_keys=False)},
    }
    try:
        await client.replace(CONFIG_MAPS, value)
    except NotFound:
        await client.create(CONFIG_MAPS, value)
