"""Answers for nodes that ask by network address (a stock ztunnel with `XDS_ON_DEMAND`).

Such a node waits until a response has a resource named exactly as it asked, `<network>/<ip>`; without an answer, or
with the answer that there is none, traffic would wait for ever or pass outside the mesh. So each address that
was asked for is served as an on-demand resource of that name, a copy of the workload's or service's.
The index is built when the first such question comes: our own agents ask for everything and need none of this.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ambit.model.service import Service
from ambit.model.workload import NetworkMode, Workload
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, from_resource
from ambit.xds.store import Store


def is_address(name: str) -> bool:
    """Whether a name has the form `<network>/<ip>`; the network may be empty."""
    _, slash, text = name.rpartition("/")
    if not slash:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def addresses_of(resource: Resource) -> Iterator[str]:
    """The addresses under which a resource can be asked for."""
    value = from_resource(ADDRESS_TYPE, resource)
    if isinstance(value, Workload):
        # Pods on the host's network share the node's address (ztunnel does not find them by address either).
        if value.network_mode is not NetworkMode.HOST_NETWORK:
            yield from (f"{value.network}/{address}" for address in value.addresses)
    elif isinstance(value, Service):
        for virtual in value.addresses:
            if virtual.prefix is None:
                yield f"{virtual.network}/{virtual.address}"


class AddressIndex:
    """Which resources have an address, once somebody has asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: set[str] = set()
        self._names: dict[str, set[str]] | None = None
        self._addresses: dict[str, tuple[str, ...]] = {}

    def ask(self, names: Iterable[str]) -> dict[str, Resource]:
        """The resources of these addresses; those that are missing will come with `follow`."""
        if self._names is None:
            self._names = {}
            for resource in self._store.resources(ADDRESS_TYPE).values():
                self._move(resource.name, resource)
        wanted = list(names)
        self._asked.update(wanted)
        found = {name: self._alias(name, {}) for name in wanted}
        return {name: resource for name, resource in found.items() if resource is not None}

    def follow(
        self, changed: Mapping[str, Resource], removed: Iterable[str]
    ) -> tuple[dict[str, Resource], list[str]]:
        """What a change of resources changes of the addresses that were asked for: to send, and gone."""
        if self._names is None:
            return {}, []
        touched: set[str] = set()
        for name in removed:
            touched.update(self._move(name, None))
        for name, resource in changed.items():
            touched.update(self._move(name, resource))
        present: dict[str, Resource] = {}
        gone: list[str] = []
        for address in sorted(touched & self._asked):
            alias = self._alias(address, changed)
            if alias is None:
                gone.append(address)
            else:
                present[address] = alias
        return present, gone

    def _move(self, name: str, resource: Resource | None) -> set[str]:
        assert self._names is not None
        before = self._addresses.pop(name, ())
        for address in before:
            members = self._names[address]
            members.discard(name)
            if not members:
                del self._names[address]
        after = tuple(addresses_of(resource)) if resource is not None and not resource.on_demand else ()
        if after:
            self._addresses[name] = after
        for address in after:
            self._names.setdefault(address, set()).add(name)
        return {*before, *after}

    def _alias(self, address: str, newer: Mapping[str, Resource]) -> Resource | None:
        assert self._names is not None
        names = self._names.get(address)
        if not names:
            return None
        # A pod goes before other holders of its address, as in ztunnel.
        name = min(names, key=lambda each: ("//Pod/" not in each, each))
        resource = newer.get(name) or self._store.get(ADDRESS_TYPE, name)
        if resource is None:
            return None
        return msgspec.structs.replace(resource, name=address, on_demand=True, encoded=b"")
