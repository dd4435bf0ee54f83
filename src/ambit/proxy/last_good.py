"""What an agent keeps for the next one of its pod: configuration that Envoy has taken, and the certificate.

One SQLite file with mode 0600, in the pod's memory on Kubernetes, because keys are in it. A container that starts
again serves from it while the control plane is away. A file that cannot be read or written is removed: a part of it
could lack a policy.
"""

import contextlib
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ambit.agent.csr import Certificate, parsed
from ambit.core.identity import Identity
from ambit.xds.frames import Resource

_log = logging.getLogger("ambit.proxy.kept")
_VERSION = 1
_SCHEMA = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE resource (type TEXT, name TEXT, version TEXT NOT NULL, on_demand INTEGER NOT NULL, body BLOB NOT NULL,
                       PRIMARY KEY (type, name)) WITHOUT ROWID;
CREATE TABLE complete (type TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_CERTIFICATE = "certificate"
"""Takes the place of a type URL."""
_FAST = 1
"""Level of compression: resources of one type repeat each other's words."""


class LastGood:
    """In the file `path`, from `open` to `close`. It is also `ambit.agent.certificates.Kept`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Nothing is kept where the file cannot be made."""
        try:
            self._database = _open(self._path)
        except (OSError, sqlite3.Error) as problem:
            self._give_up(problem)
            with contextlib.suppress(OSError, sqlite3.Error):
                self._database = _open(self._path)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None

    def configuration(self, types: Sequence[str]) -> Mapping[str, list[Resource]] | None:
        """Resources by type; None unless all of each type was kept once."""
        if self._database is None:
            return None
        found: dict[str, list[Resource]] = {each: [] for each in types}
        try:
            complete = {each for (each,) in self._database.execute("SELECT type FROM complete")}
            rows = self._database.execute("SELECT type, name, version, on_demand, body FROM resource")
            for type_url, name, version, on_demand, packed in rows:
                if type_url in found:
                    body = zlib.decompress(packed)
                    resource = Resource(name=name, version=version, body=body, on_demand=bool(on_demand))
                    found[type_url].append(resource)
        except (sqlite3.Error, zlib.error) as problem:
            self._give_up(problem)
            return None
        return found if complete.issuperset(types) else None

    def keep(self, type_url: str, resources: Iterable[Resource], removed: Iterable[str] = ()) -> None:
        """Adds what Envoy has taken now, and forgets what it has no more."""
        if self._database is None:
            return
        rows = [
            (type_url, each.name, each.version, each.on_demand, zlib.compress(each.content(), _FAST))
            for each in resources
        ]
        gone = [(type_url, name) for name in removed]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?, ?)", rows)
                self._database.executemany("DELETE FROM resource WHERE type = ? AND name = ?", gone)
                self._database.execute("INSERT OR IGNORE INTO complete VALUES (?)", (type_url,))
        except sqlite3.Error as problem:
            self._give_up(problem)

    def load(self, identity: Identity) -> Certificate | None:
        kept = self.configuration([_CERTIFICATE]) or {_CERTIFICATE: []}
        try:
            for each in kept[_CERTIFICATE]:
                if each.name == identity.uri:
                    return parsed(*msgspec.msgpack.decode(each.body, type=tuple[bytes, bytes, bytes]))
        except (msgspec.DecodeError, ValueError) as problem:
            _log.warning("the certificate in %s cannot be used: %s", self._path, problem)
        return None

    def save(self, certificate: Certificate) -> str:
        body = msgspec.msgpack.encode((certificate.key, certificate.chain, certificate.roots))
        self.keep(_CERTIFICATE, [Resource(name=certificate.identity.uri, version="", body=body)])
        return "" if self._database is not None else f"{self._path} cannot be written"

    def drop(self, identity: Identity) -> None:
        self.keep(_CERTIFICATE, (), [identity.uri])

    def _give_up(self, problem: Exception) -> None:
        self.close()
        _log.error(
            "%s: %s. It is removed: should this container start again, it serves when the control plane answers",
            self._path,
            problem,
        )
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()


def _open(path: Path) -> sqlite3.Connection:
    """Raises OSError, and sqlite3.Error for what cannot be used."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=1.0)
    try:
        # The file ends with the machine at the latest: nothing has to reach a disk.
        for pragma in (
            "journal_mode = WAL",
            "synchronous = OFF",
            "cache_size = -256",
            "wal_autocheckpoint = 100",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new file, and checks an old one. Raises sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(_SCHEMA)
    elif version != _VERSION or connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("of another version, or damaged")
