"""The cluster's objects on disk: SQLite in WAL mode, one writer, objects as JSON bytes.

`synchronous=NORMAL`: a commit is in the WAL file (page cache) when a write is acknowledged, so killing the
process at
any point loses nothing; only a crash of the whole machine may lose the last commits, and that also kills
every pod of the instance. The database itself stays consistent in both cases.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ambit.core.errors import AmbitError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  storage TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  revision INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (storage, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (1, 1);
"""


def unusable(path: Path | None, error: Exception) -> AmbitError:
    """The error for a file that cannot be read as a database."""
    return AmbitError(
        f"the cluster database {path} cannot be opened: {error}",
        "free disk space, or delete the file to start with an empty cluster",
    )


class Database:
    """Rows (storage, namespace, name) -> (revision, data). Every write is one transaction."""

    def __init__(self, path: Path | None) -> None:
        """Opens or creates the file; None keeps everything in memory. Raises AmbitError when it is
        unusable."""
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA busy_timeout=2000")
            self._db.executescript(_SCHEMA)
            if path is not None:
                path.chmod(0o600)
        except sqlite3.Error as error:
            raise unusable(path, error) from error

    def revision(self) -> int:
        """The highest revision ever given."""
        (value,) = self._db.execute("SELECT value FROM revision").fetchone()
        return int(value)

    def rows(self) -> Iterator[tuple[str, str, str, int, bytes]]:
        yield from self._db.execute("SELECT storage, namespace, name, revision, data FROM objects")

    def put(self, storage: str, namespace: str, name: str, revision: int, data: bytes) -> None:
        with self._transaction(revision) as db:
            row = (storage, namespace, name, revision, data)
            db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", row)

    def put_many(self, rows: list[tuple[str, str, str, int, bytes]]) -> None:
        """Several new objects in one transaction; the last row carries the highest revision."""
        with self._transaction(rows[-1][3]) as db:
            db.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", rows)

    def rewrite(self, storage: str, namespace: str, name: str, data: bytes) -> None:
        """Other bytes for a row, at its old revision."""
        row = (data, storage, namespace, name)
        self._db.execute("UPDATE objects SET data = ? WHERE storage = ? AND namespace = ? AND name = ?", row)

    def delete(self, storage: str, namespace: str, name: str, revision: int) -> None:
        with self._transaction(revision) as db:
            row = (storage, namespace, name)
            db.execute("DELETE FROM objects WHERE storage = ? AND namespace = ? AND name = ?", row)

    def close(self) -> None:
        self._db.close()

    def _transaction(self, revision: int) -> "_Transaction":
        return _Transaction(self._db, revision)


class _Transaction:
    def __init__(self, db: sqlite3.Connection, revision: int) -> None:
        self._db = db
        self._revision = revision

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._db.execute("UPDATE revision SET value = ?", (self._revision,))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """SQLite ends a transaction by itself after some errors, such as a full disk."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
