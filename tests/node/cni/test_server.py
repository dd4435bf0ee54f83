"""The CNI socket: one JSON object per line each way, whatever comes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.errors import AmbitError
from ambit.node.cni.server import CniServer
from ambit.node.enrol.sandbox import Sandbox
from tests.soak import fuzz

FIELDS = {
    "namespace": "default",
    "name": "web",
    "uid": "u",
    "sandbox": "s",
    "netns": "/n",
    "ips": ["10.0.0.1"],
}


class Agent:
    def __init__(self) -> None:
        self.seen: list[tuple[str, Sandbox]] = []
        self.refusal = ""
        self.is_broken = False

    async def add(self, sandbox: Sandbox) -> bool:
        self.seen.append(("add", sandbox))
        if self.is_broken:
            raise FileNotFoundError(2, "No such file or directory", sandbox.netns)
        if self.refusal:
            raise AmbitError(self.refusal)
        return sandbox.name == "web"

    async def remove(self, sandbox: Sandbox) -> None:
        self.seen.append(("del", sandbox))

    async def left(self, sandbox: Sandbox) -> None:
        self.seen.append(("leave", sandbox))
        if self.refusal:
            raise AmbitError(self.refusal)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent()
    path = tmp_path / "run" / "cni.sock"
    task = asyncio.ensure_future(CniServer(path, agent.add, agent.remove, agent.left).run())
    async with asyncio.timeout(60):
        while not path.exists():  # noqa: ASYNC110 - the server makes it
            await asyncio.sleep(0.01)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    yield agent
    task.cancel()
    await asyncio.wait([task])


async def talk(tmp_path: Path, *lines: bytes) -> list[dict[str, object]]:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "run" / "cni.sock"))
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        async with asyncio.timeout(60):
            answers.append(json.loads(await reader.readline()))
    writer.close()
    return answers


def request(command: str, **changes: object) -> bytes:
    return json.dumps({"command": command, **FIELDS, **changes}).encode()


async def test_commands_on_one_connection(agent: Agent, tmp_path: Path) -> None:
    lines = request("add"), request("add", name="other"), request("leave"), request("del")
    answers = await talk(tmp_path, *lines)
    assert answers == [
        {"ok": True, "enrolled": True},
        {"ok": True, "enrolled": False},
        {"ok": True},
        {"ok": True},
    ]
    assert agent.seen[0] == ("add", Sandbox("default", "web", "u", "s", "/n", ("10.0.0.1",)))
    assert [command for command, _ in agent.seen] == ["add", "add", "leave", "del"]


async def test_a_refusal_is_one_sentence(agent: Agent, tmp_path: Path) -> None:
    agent.refusal = "no certificate"
    refused = {"ok": False, "error": "no certificate"}
    assert await talk(tmp_path, request("add"), request("leave")) == [refused, refused]


async def test_a_sandbox_that_vanishes_is_a_refusal_with_its_reason(agent: Agent, tmp_path: Path) -> None:
    agent.is_broken = True
    (answer,) = await talk(tmp_path, request("add"))
    assert answer["ok"] is False and "No such file or directory: '/n'" in str(answer["error"])


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b"\xff", b'{"command":"fly"}', request("fly")])
async def test_nonsense_is_refused_and_the_connection_goes_on(
    agent: Agent, tmp_path: Path, line: bytes
) -> None:
    answers = await talk(tmp_path, line, request("add"))
    assert answers[0]["ok"] is False
    assert answers[1] == {"ok": True, "enrolled": True}


LINES = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(["command", *FIELDS, "more"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=5), max_size=2)),
    ).map(lambda fields: json.dumps(fields).encode()),
    st.tuples(st.sampled_from([*FIELDS, "command"]), st.one_of(st.text(max_size=9), st.integers())).map(
        lambda change: json.dumps({"command": "add", **FIELDS, change[0]: change[1]}).encode()
    ),
    st.integers(1, 40).map(lambda depth: b"[" * depth * 1000),
    st.just(request("add", name="x" * 100_000)),
)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@fuzz(60)
@given(st.lists(LINES, max_size=4))
async def test_any_bytes_are_refused_or_understood_and_others_are_served(
    agent: Agent, tmp_path: Path, lines: list[bytes]
) -> None:
    """Each line has one answer; one that is too long ends its connection."""
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "run" / "cni.sock"))
    sent = b"\n".join(lines) + b"\n"
    writer.write(sent)
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            answers = (await reader.read()).splitlines()
            assert len(answers) <= sent.count(b"\n")
            assert {type(json.loads(answer)["ok"]) for answer in answers} <= {bool}
    writer.close()
    assert await talk(tmp_path, request("add")) == [{"ok": True, "enrolled": True}]
