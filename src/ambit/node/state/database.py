"""The agent's state file: opened, checked, and moved aside when it is damaged.

A damaged file is never repaired and never trusted: it is renamed, and the control plane sends everything
again. The file holds private keys, so its mode is 0600.

While the disk takes nothing, changes of the mesh stay in one open transaction (`hold`): its pages are in memory, the
connection's lookups see them, and `flush` commits them once there is room.
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from ambit.core.errors import AmbitError

_log = logging.getLogger("ambit.state")
SCHEMA_VERSION: Final = 1
"""Kept in `user_version`; a file of another version is treated like a damaged one."""

_ROOM_SUFFIX: Final = "-room"
"""Of a file that takes the room which a commit needs, until just before it."""
_FRAME: Final = 4096 + 24
"""Bytes of a page in SQLite's write-ahead log."""
_WRITABLE: Final = "free space on the disk of the node's state, and see that it may be written to"

HOST_BITS: Final = 128
"""`prefix` of an exact address, of either family; less means a range."""

_SCHEMA = f"""
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE resource (type TEXT, name TEXT, version TEXT NOT NULL, body BLOB NOT NULL,
                       PRIMARY KEY (type, name)) WITHOUT ROWID;
CREATE TABLE address (network TEXT, address BLOB, prefix INTEGER, kind TEXT, name TEXT,
                      PRIMARY KEY (network, address, prefix, kind, name)) WITHOUT ROWID;
CREATE INDEX address_by_name ON address (name);
CREATE INDEX address_ranges ON address (network, prefix) WHERE prefix < {HOST_BITS};
CREATE TABLE hostname (hostname TEXT, name TEXT, PRIMARY KEY (hostname, name)) WITHOUT ROWID;
CREATE INDEX hostname_by_name ON hostname (name);
CREATE TABLE endpoint (service TEXT, uid TEXT, PRIMARY KEY (service, uid)) WITHOUT ROWID;
CREATE INDEX endpoint_by_uid ON endpoint (uid);
CREATE TABLE policy (scope INTEGER, namespace TEXT, name TEXT,
                     PRIMARY KEY (scope, namespace, name)) WITHOUT ROWID;
CREATE INDEX policy_by_name ON policy (name);
CREATE TABLE complete (type TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE certificate (identity TEXT PRIMARY KEY, key BLOB, chain BLOB, roots BLOB) WITHOUT ROWID;
CREATE TABLE pod (uid TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
"""


T = TypeVar("T")


class StateLost(AmbitError):
    """The state file broke while it was in use; it has to be opened anew and filled again."""


class StateNotWritten(AmbitError):
    """The change could not be stored (disk full, file locked); what was there before is intact."""


class Database(sqlite3.Connection):
    """The connection to the state file at `path`. `unstored` is why changes are in memory only; empty when all are on
    disk."""

    path: Path
    unstored = ""


def open_database(path: Path) -> Database:
    """The checked database at `path`; a new one when there was none or it was damaged.

    Raises StateNotWritten when the directory is not writable, or the disk is full.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return _open(path)
    except sqlite3.DatabaseError as problem:
        if isinstance(problem, sqlite3.OperationalError) and not (path.exists() and _has_room(path, _FRAME)):
            raise StateNotWritten(f"cannot open {path}: {problem}", _WRITABLE) from problem
        _log.error("state file %s is unusable (%s): moved aside, everything is fetched again", path, problem)
        move_aside(path)
    try:
        return _open(path)
    except sqlite3.DatabaseError as problem:
        raise StateNotWritten(f"cannot create {path}: {problem}", _WRITABLE) from problem


def move_aside(path: Path) -> None:
    """Renames a damaged file to `<name>.damaged` (one is kept) and removes its journal."""
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(path.name + ".damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def transaction(connection: Database) -> Iterator[sqlite3.Connection]:
    """One atomic change that is on disk afterwards. Raises StateNotWritten (rolled back) or StateLost."""
    if connection.unstored:
        raise StateNotWritten(connection.unstored, _WRITABLE)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    except BaseException as problem:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if isinstance(problem, sqlite3.DatabaseError):
            raise mapped(problem) from problem
        raise


def hold(connection: Database, change: Callable[[sqlite3.Connection], T]) -> T:
    """What `change` returns. Its writes are one atomic change, in memory only when the disk does not take them: then
    `unstored` says why. Raises StateNotWritten (rolled back) or StateLost."""
    try:
        with transaction(connection):
            return change(connection)
    except StateNotWritten as problem:
        reason = problem.message
    try:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        connection.execute("SAVEPOINT held")
        result = change(connection)
        connection.execute("RELEASE held")
    except BaseException as problem:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK TO held" if connection.unstored else "ROLLBACK")
        if not connection.in_transaction:
            connection.unstored = ""
        if isinstance(problem, sqlite3.DatabaseError):
            raise mapped(problem) from problem
        raise
    connection.unstored = reason
    return result


def flush(connection: Database) -> bool:
    """Whether everything is on disk now. Raises StateNotWritten when a commit failed although there was room: what was
    only in memory is lost then."""
    if not connection.unstored:
        return True
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    if not _has_room(connection.path, pages * _FRAME):
        return False
    connection.unstored = ""
    try:
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as problem:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise mapped(problem) from problem
    return True


@contextmanager
def on_disk(path: Path) -> Iterator[sqlite3.Connection]:
    """A second connection, which sees what is on disk."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def _has_room(path: Path, size: int) -> bool:
    """Whether the disk has `size` bytes for the file at `path`."""
    room = path.with_name(path.name + _ROOM_SUFFIX)
    try:
        descriptor = os.open(room, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
            room.unlink()
    except OSError:
        return False
    return True


def mapped(problem: sqlite3.Error) -> AmbitError:
    """Our error for one of SQLite's."""
    if isinstance(problem, sqlite3.OperationalError) and "malformed" not in str(problem):
        return StateNotWritten(f"the node's state could not be stored: {problem}", _WRITABLE)
    return StateLost(f"the node's state file is damaged: {problem}", "it is moved aside and fetched again")


def _open(path: Path) -> Database:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=1.0, cached_statements=64, factory=Database
    )
    connection.path = path
    try:
        # NORMAL may lose the newest commits at a power cut: versions and bodies go together, so the control
        # plane sends exactly the difference again.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -1024", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        # Nothing is written before a commit, which `hold` relies on.
        for pragma in ("cache_spill = OFF", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new file; checks an old one. Raises sqlite3.DatabaseError."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        connection.executescript(_SCHEMA)
    elif version != SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"schema version {version}, this agent reads {SCHEMA_VERSION}")
    elif (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(str(verdict))
