"""The workload API's resources on disk, as the `MeshView` that plans and DNS read.

Rules (each has a test of the same number):
1. Bodies and versions change together; what was acknowledged is on disk. What the disk does not take counts at once
   and is in memory (`unstored`).
2. A resource that cannot be decoded is refused by name and leaves its former state; the others are taken.
3. Lookups give what was last stored, whatever the order of changes; removal leaves no index entry behind.
4. Memory does not follow the mesh: at most `cached` decoded values are held, and as many answers by address.
"""

import ipaddress
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ambit.core.address import Address, Network, outer_network, sorted_networks
from ambit.model.policy import Authorization, Scope
from ambit.model.service import Service
from ambit.model.view import preference, select_service
from ambit.model.workload import NetworkMode, Workload
from ambit.node.state import keys
from ambit.node.state.database import (
    HOST_BITS,
    StateLost,
    StateNotWritten,
    flush,
    hold,
    mapped,
    move_aside,
    on_disk,
    open_database,
    transaction,
)
from ambit.xds.frames import Resource
from ambit.xds.messages import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    TYPES,
    Value,
    decode_address,
    decode_authorization,
    from_resource,
)
from ambit.xds.wire import unpack

_RANGE_LENGTHS: Final = (
    "SELECT DISTINCT prefix FROM address WHERE network = ? AND prefix < 128 AND length(address) = ? "
    "ORDER BY prefix DESC"
)
"""HOST_BITS is a literal here, which lets SQLite use the index of ranges: they are few."""
_VERSIONS: Final = "SELECT name, version FROM resource WHERE type = ?"
_WORKLOAD: Final = "workload"
_SERVICE: Final = "service"

V = TypeVar("V", Workload, Service, Authorization)


class Stored(msgspec.Struct, frozen=True):
    """What one change did: names that changed or vanished, names refused with the reason, and the keys
    (`ambit.node.state.keys`) of all lookups that may answer differently now."""

    changed: tuple[str, ...]
    refused: Mapping[str, str]
    touched: frozenset[str] = frozenset()


_UNSTORED: Final = "unstored"
"""Version of a resource that is in memory only: the control plane has none with it."""
_OWN = "ambit"
"""Stands for a type URL in rows that are not the control plane's."""


class MeshState:
    """One state file. All methods are quick and synchronous; one thread only."""

    def __init__(self, path: Path, cached: int = 4096) -> None:
        self._path = path
        self._cached = cached
        self._values: OrderedDict[tuple[str, str], Value] = OrderedDict()
        self._outer: dict[str, tuple[Network, ...]] = {}
        self._found: OrderedDict[str, tuple[Workload, ...]] = OrderedDict()
        """Workloads by address, which every ended connection asks for. A change of a workload touches its
        addresses' keys, before and after."""
        self.database = open_database(path)
        self.lost: Callable[[], None] = lambda: None
        """Told after a damaged file was replaced by an empty one: nothing is known until it is sent again."""

    def close(self) -> None:
        self.database.close()

    def reopen(self) -> None:
        """After StateLost: sets the damaged file aside and begins with an empty one."""
        self.database.close()
        move_aside(self._path)
        self._forget_values()
        self.database = open_database(self._path)
        self.lost()

    # Changes

    def apply(self, type_url: str, resources: Collection[Resource], removed: Collection[str]) -> Stored:
        """Takes resources and removals in as one change, in memory when they cannot be written.

        Raises StateNotWritten (nothing changed) or StateLost.
        """
        try:
            stored = hold(self.database, partial(_apply, type_url, resources, removed))
        except StateNotWritten:
            self._forget_values()
            raise
        if keys.OUTER in stored.touched:
            self._outer.clear()
        for key in stored.touched:
            self._found.pop(key, None)
        for name in stored.changed:
            self._values.pop((type_url, name), None)
        return stored

    @property
    def unstored(self) -> str:
        """Why changes are in memory only; empty when all are on disk."""
        return self.database.unstored

    def flush(self) -> bool:
        """Whether everything is on disk now. Raises StateNotWritten when changes that were only in memory are lost, or
        StateLost."""
        try:
            return flush(self.database)
        except StateNotWritten:
            self._forget_values()
            raise

    def _forget_values(self) -> None:
        self._values.clear()
        self._outer.clear()
        self._found.clear()

    def keep(self, name: str, value: bytes) -> None:
        """Stores a value of the agent's own. Raises StateNotWritten or StateLost."""
        with transaction(self.database) as database:
            database.execute("INSERT OR REPLACE INTO resource VALUES (?, ?, '', ?)", (_OWN, name, value))

    def kept(self, name: str) -> bytes | None:
        rows = self._rows("SELECT body FROM resource WHERE type = ? AND name = ?", _OWN, name)
        return rows[0][0] if rows else None

    def mark_complete(self, type_url: str) -> None:
        """Remembers that the first complete answer for a type was taken in."""
        hold(
            self.database,
            lambda database: database.execute("INSERT OR IGNORE INTO complete VALUES (?)", (type_url,)),
        )

    @property
    def complete(self) -> bool:
        """Whether both types were ever answered completely, now or in a former life of the agent."""
        return {row[0] for row in self._rows("SELECT type FROM complete")} >= set(TYPES)

    def versions(self, type_url: str) -> dict[str, str]:
        """What is held, for `initial_resource_versions`. What is in memory only has a version that differs from every
        one of the control plane, which sends it again, or its removal."""
        held: dict[str, str] = dict(self._rows(_VERSIONS, type_url))
        if not self.unstored:
            return held
        with on_disk(self._path) as database:
            stored: dict[str, str] = dict(database.execute(_VERSIONS, (type_url,)))
        return {name: each if stored.get(name) == each else _UNSTORED for name, each in held.items()}

    def count(self, type_url: str) -> int:
        return int(self._rows("SELECT count(*) FROM resource WHERE type = ?", type_url)[0][0])

    # Lookups: `MeshView`

    def workload(self, uid: str) -> Workload | None:
        return self._value(ADDRESS_TYPE, uid, Workload)

    def service(self, key: str) -> Service | None:
        return self._value(ADDRESS_TYPE, key, Service)

    def authorization(self, key: str) -> Authorization | None:
        return self._value(AUTHORIZATION_TYPE, key, Authorization)

    def workload_by_address(self, network: str, address: Address) -> Workload | None:
        """The first by `preference`; host-network workloads are not found by address."""
        key = keys.address_of(network, address)
        found = self._found.get(key)
        if found is None:
            names = self._names_at(_WORKLOAD, network, address)
            workloads = [workload for name in names if (workload := self.workload(name)) is not None]
            found = self._found[key] = tuple(sorted(workloads, key=preference)[:1])
            if len(self._found) > self._cached:
                self._found.popitem(last=False)
        return found[0] if found else None

    def service_by_address(
        self, network: str, address: Address, *, client_namespace: str = ""
    ) -> Service | None:
        """Exact addresses before ranges, narrow ranges before wide ones; then as `select_service` chooses."""
        for names in self._names_around(network, address):
            found = [service for name in names if (service := self.service(name)) is not None]
            chosen = select_service(found, network, address, client_namespace)
            if chosen is not None:
                return chosen
        return None

    def has_address(self, network: str, address: Address) -> bool:
        return any(self._names_at(kind, network, address) for kind in (_WORKLOAD, _SERVICE))

    def services_by_hostname(self, hostname: str) -> tuple[Service, ...]:
        """All services of this fully qualified name (lower case), in any namespace."""
        names = self._rows("SELECT name FROM hostname WHERE hostname = ?", hostname)
        return tuple(service for (name,) in names if (service := self.service(name)) is not None)

    def endpoints(self, service: Service) -> tuple[Workload, ...]:
        """Workloads that serve it, in a stable order; unhealthy ones included."""
        names = self._rows("SELECT uid FROM endpoint WHERE service = ? ORDER BY uid", service.key)
        return tuple(workload for (uid,) in names if (workload := self.workload(uid)) is not None)

    def policies_for(self, workload: Workload) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
        """The policies that apply to it as a destination, in order of key, and names it lists that are
        unknown here: such a workload accepts nothing."""
        scoped = self._rows(
            "SELECT name FROM policy WHERE scope = ? OR (scope = ? AND namespace = ?)",
            int(Scope.GLOBAL),
            int(Scope.NAMESPACE),
            workload.namespace,
        )
        named = {name: self.authorization(name) for name in workload.policies}
        policies = {name: policy for (name,) in scoped if (policy := self.authorization(name)) is not None}
        policies |= {
            name: policy
            for name, policy in named.items()
            if policy is not None and policy.scope is Scope.WORKLOAD_SELECTOR
        }
        unknown = tuple(sorted(name for name, policy in named.items() if policy is None))
        return tuple(policies[name] for name in sorted(policies)), unknown

    def outer_networks(self, network: str) -> tuple[Network, ...]:
        """Found once and kept until an address outside the usual ranges comes; one that goes is forgotten then."""
        known = self._outer.get(network)
        if known is None:
            blocks = self._rows(
                "SELECT DISTINCT substr(address, 1, 1 + length(address) * 5 / 16), length(address), prefix "
                "FROM address WHERE network = ?",
                network,
            )
            found = {
                outer_network(
                    ipaddress.ip_address(start.ljust(length, b"\0")), None if prefix == HOST_BITS else prefix
                )
                for start, length, prefix in blocks
            }
            known = self._outer[network] = sorted_networks(each for each in found if each is not None)
        return known

    # Lists, for `/config_dump`

    def addresses(self) -> Iterator[Workload | Service]:
        """Every workload and service, decoded one by one and not kept."""
        for (body,) in self.database.execute("SELECT body FROM resource WHERE type = ?", (ADDRESS_TYPE,)):
            yield decode_address(body)

    def authorizations(self) -> Iterator[Authorization]:
        rows = self.database.execute("SELECT body FROM resource WHERE type = ?", (AUTHORIZATION_TYPE,))
        for (body,) in rows:
            yield decode_authorization(body)

    def _names_at(self, kind: str, network: str, address: Address) -> list[str]:
        rows = self._rows(
            "SELECT name FROM address WHERE network = ? AND address = ? AND prefix = ? AND kind = ?",
            network,
            address.packed,
            HOST_BITS,
            kind,
        )
        return [name for (name,) in rows]

    def _names_around(self, network: str, address: Address) -> Iterator[list[str]]:
        """Services at this address, then those of the ranges that hold it, narrow ones first."""
        yield self._names_at(_SERVICE, network, address)
        prefixes = self._rows(
            _RANGE_LENGTHS,
            network,
            len(address.packed),
        )
        for (prefix,) in prefixes:
            rows = self._rows(
                "SELECT name FROM address WHERE network = ? AND address = ? AND prefix = ?",
                network,
                _masked(address.packed, prefix),
                prefix,
            )
            yield [name for (name,) in rows]

    def _value(self, type_url: str, name: str, wanted: type[V]) -> V | None:
        key = (type_url, name)
        value = self._values.get(key)
        if value is None:
            rows = self._rows("SELECT body FROM resource WHERE type = ? AND name = ?", type_url, name)
            if not rows:
                return None
            decode = decode_address if type_url == ADDRESS_TYPE else decode_authorization
            value = self._values[key] = decode(rows[0][0])
            if len(self._values) > self._cached:
                self._values.popitem(last=False)
        else:
            self._values.move_to_end(key)
        return value if isinstance(value, wanted) else None

    def _rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        try:
            return self.database.execute(statement, arguments).fetchall()
        except sqlite3.DatabaseError as problem:
            if isinstance(problem, sqlite3.OperationalError):
                raise mapped(problem) from problem
            raise StateLost(f"the node's state file is damaged: {problem}") from problem


def _masked(packed: bytes, prefix: int) -> bytes:
    bits = len(packed) * 8
    return ((int.from_bytes(packed) >> (bits - prefix)) << (bits - prefix)).to_bytes(len(packed))


def _apply(
    type_url: str, resources: Iterable[Resource], removed: Iterable[str], database: sqlite3.Connection
) -> Stored:
    changed: list[str] = []
    refused: dict[str, str] = {}
    touched: set[str] = set()
    for resource in resources:
        try:
            value = from_resource(type_url, resource)
        except ValueError as problem:
            refused[resource.name] = str(problem)
            continue
        _forget(database, type_url, resource.name, touched)
        database.execute(
            "INSERT INTO resource VALUES (?, ?, ?, ?)",
            (type_url, resource.name, resource.version, unpack(resource.body)[1]),
        )
        _index(database, value)
        touched |= keys.of_value(value)
        changed.append(resource.name)
    changed += [name for name in removed if _forget(database, type_url, name, touched)]
    return Stored(tuple(changed), refused, frozenset(touched))


def _forget(database: sqlite3.Connection, type_url: str, name: str, touched: set[str]) -> bool:
    gone = database.execute("DELETE FROM resource WHERE type = ? AND name = ?", (type_url, name)).rowcount
    if not gone:
        return False
    if type_url == ADDRESS_TYPE:
        for network, packed, prefix in database.execute(
            "SELECT network, address, prefix FROM address WHERE name = ?", (name,)
        ):
            touched.add(keys.RANGES if prefix != HOST_BITS else keys.address(network, packed))
        for (service,) in database.execute("SELECT service FROM endpoint WHERE uid = ?", (name,)):
            touched.add(keys.endpoints(service))
        touched.add(keys.resource(name))
        database.execute("DELETE FROM address WHERE name = ?", (name,))
        database.execute("DELETE FROM hostname WHERE name = ?", (name,))
        database.execute("DELETE FROM endpoint WHERE uid = ?", (name,))
    else:
        for scope, namespace in database.execute(
            "SELECT scope, namespace FROM policy WHERE name = ?", (name,)
        ):
            touched.add(keys.policies(scope, namespace))
        touched.add(keys.policy(name))
        database.execute("DELETE FROM policy WHERE name = ?", (name,))
    return True


def _index(database: sqlite3.Connection, value: Value) -> None:
    match value:
        case Workload():
            if value.network_mode is NetworkMode.STANDARD:
                database.executemany(
                    "INSERT OR IGNORE INTO address VALUES (?, ?, ?, ?, ?)",
                    [(value.network, a.packed, HOST_BITS, _WORKLOAD, value.key) for a in value.addresses],
                )
            database.executemany(
                "INSERT INTO endpoint VALUES (?, ?)", [(service, value.uid) for service in value.services]
            )
        case Service():
            database.execute("INSERT INTO hostname VALUES (?, ?)", (value.hostname.lower(), value.key))
            database.executemany(
                "INSERT OR IGNORE INTO address VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        virtual.network,
                        virtual.address.packed
                        if virtual.prefix is None
                        else _masked(virtual.address.packed, virtual.prefix),
                        HOST_BITS if virtual.prefix is None else virtual.prefix,
                        _SERVICE,
                        value.key,
                    )
                    for virtual in value.addresses
                ],
            )
        case Authorization():
            database.execute(
                "INSERT INTO policy VALUES (?, ?, ?)", (int(value.scope), value.namespace, value.key)
            )
