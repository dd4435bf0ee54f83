"""A real server on a Unix socket, and a client that speaks JSON to it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ambit.local.apiserver.server import ApiServer, ApiSettings


class Client:
    """Requests with JSON bodies; answers (status, body)."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        media: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": media, "Accept": accept}
        async with self.session.request(method, path, data=data, headers=headers, params=query) as response:
            return response.status, json.loads(await response.read())

    async def make(self, path: str, body: Any, **query: str) -> Any:
        status, answer = await self.call("POST", path, body, **query)
        assert status == 201, answer
        return answer

    async def get(self, path: str, **query: str) -> Any:
        status, answer = await self.call("GET", path, **query)
        assert status == 200, answer
        return answer

    async def events(self, path: str, count: int, **query: str) -> list[Any]:
        """The first `count` lines of a watch."""
        found: list[Any] = []
        params = {"watch": "true", "timeoutSeconds": "60", **query}
        async with self.session.get(path, params=params) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                found.append(json.loads(line))
                if len(found) == count:
                    break
        return found


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    api = ApiServer(ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite"), None)
    await api.start([], tmp_path / "api.sock")
    yield api
    await api.stop()


@pytest.fixture
async def client(server: ApiServer, tmp_path: Path) -> AsyncIterator[Client]:
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession("http://api", connector=connector) as session:
        yield Client(session)
