"""A full disk and a damaged file: clear errors, nothing lost."""

import sqlite3
from pathlib import Path

import pytest

from ambit.core.errors import AmbitError
from ambit.local.apiserver.server import ApiServer, ApiSettings
from tests.local.apiserver.conftest import Client
from tests.local.apiserver.test_objects import MAPS, config_map


async def test_a_full_disk_refuses_writes_and_keeps_the_rest(client: Client, server: ApiServer) -> None:
    await client.make(MAPS, config_map("before"))
    database: sqlite3.Connection = server.store._database._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count={pages}")
    status, answer = await client.call("POST", MAPS, config_map("big", data="x" * 500_000))
    assert (status, answer["reason"]) == (500, "InternalError")
    assert "database or disk is full" in answer["message"]
    status, _ = await client.call("GET", f"{MAPS}/big")
    assert status == 404
    found = await client.get(MAPS)
    assert "before" in {item["metadata"]["name"] for item in found["items"]}
    database.execute("PRAGMA max_page_count=100000")
    await client.make(MAPS, config_map("big", data="x" * 500_000))


def test_a_damaged_file_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "cluster.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(AmbitError) as caught:
        ApiServer(ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite"), None)
    assert "cluster.sqlite" in caught.value.message and "delete the file" in caught.value.hint
