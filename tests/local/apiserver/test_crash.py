"""Killing the server at any moment loses nothing that it acknowledged."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.local.apiserver.conftest import Client
from tests.local.apiserver.test_objects import MAPS, config_map

SERVER = """
import asyncio, sys
from pathlib import Path
from ambit.local.apiserver.server import ApiServer, ApiSettings

async def main(root: Path) -> None:
    server = ApiServer(ApiSettings(root / "pki", root / "cluster.sqlite", bundles=()), None)
    await server.start([], root / "api.sock")
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


async def start(root: Path) -> asyncio.subprocess.Process:
    (root / "api.sock").unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVER,
        str(root),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
    return process


def connect(root: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://api", connector=aiohttp.UnixConnector(str(root / "api.sock")))


@pytest.mark.parametrize("survivors", [3, 40])
async def test_a_killed_server_comes_back_with_everything(tmp_path: Path, survivors: int) -> None:
    process = await start(tmp_path)
    acknowledged: dict[str, str] = {}
    enough = asyncio.Event()

    async def write(client: Client) -> None:
        index = 0
        while True:
            made = await client.make(MAPS, config_map(f"m{index}", k="v"))
            acknowledged[made["metadata"]["name"]] = made["metadata"]["resourceVersion"]
            index += 1
            if index == survivors:
                enough.set()

    async with connect(tmp_path) as session:
        writer = asyncio.create_task(write(Client(session)))
        await enough.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        with pytest.raises(aiohttp.ClientError):
            await writer
    process = await start(tmp_path)
    try:
        async with connect(tmp_path) as session:
            client = Client(session)
            found = (await client.get(MAPS))["items"]
            versions = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in found}
            assert acknowledged.items() <= versions.items()
            made = await client.make(MAPS, config_map("later"))
            assert int(made["metadata"]["resourceVersion"]) > max(map(int, versions.values()))
            status, body = await client.call("GET", MAPS, watch="true", resourceVersion=versions["m0"])
            assert (status, body["reason"]) == (410, "Expired")
    finally:
        process.kill()
        await process.wait()
