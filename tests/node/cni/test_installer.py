"""Install, repair and uninstall in a node's folders; others' files stay as they are."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ambit.core.errors import AmbitError, Unreachable
from ambit.kube.client import Client
from ambit.kube.errors import Forbidden, NotFound, Unauthorized
from ambit.node.cni import installer as module
from ambit.node.cni import runtime
from ambit.node.cni.chain import FILE, PluginSettings
from ambit.node.cni.installer import Installer, is_deleted

BRIDGE = b'{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}]}'


class Node:
    def __init__(self, root: Path) -> None:
        self.programs, self.configurations = root / "bin", root / "net.d"
        self.programs.mkdir()
        self.configurations.mkdir()
        (self.programs / "bridge").write_bytes(b"theirs")
        self.theirs = self.configurations / "10-pods.conflist"
        self.ours = self.configurations / FILE
        self.installer = Installer(
            self.programs, self.configurations, PluginSettings("/run/ambit/node/cni.sock")
        )

    def network(self) -> str:
        try:
            return str(json.loads(self.ours.read_bytes())["name"])
        except FileNotFoundError:
            return ""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(module, "collect", lambda: {"plugin.pyc": runtime.File(b"x")})
    return Node(tmp_path)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - files have no other way to tell
            await asyncio.sleep(0.01)


@pytest.fixture
async def running(node: Node) -> AsyncIterator[Node]:
    node.theirs.write_bytes(BRIDGE)
    task = asyncio.ensure_future(node.installer.run())
    await until(lambda: node.installer.problem == "")
    yield node
    task.cancel()
    await asyncio.wait([task])


def test_install_and_uninstall_leave_others_alone(node: Node) -> None:
    node.theirs.write_bytes(BRIDGE)
    assert node.installer.repair() == f"program and {FILE} after 10-pods.conflist"
    assert node.installer.repair() == ""
    assert node.ours.stat().st_mode & 0o777 == 0o600
    assert (node.programs / "ambit").stat().st_mode & 0o777 == 0o755
    node.installer.uninstall()
    assert {each.name: each.read_bytes() for each in node.configurations.iterdir()} == {
        "10-pods.conflist": BRIDGE
    }
    assert [each.name for each in node.programs.iterdir()] == ["bridge"]
    assert node.installer.repair() == ""  # what was taken away stays away
    assert not node.ours.exists()


def test_a_configuration_that_others_may_read_is_made_private(node: Node) -> None:
    """As older versions wrote it."""
    node.theirs.write_bytes(BRIDGE)
    node.installer.repair()
    node.ours.chmod(0o644)
    assert node.installer.repair() == f"{FILE} after 10-pods.conflist"
    assert node.ours.stat().st_mode & 0o777 == 0o600


def test_without_a_network_there_is_no_chain(node: Node) -> None:
    with pytest.raises(AmbitError, match="no network configuration"):
        node.installer.repair()
    assert not node.ours.exists()


@pytest.mark.parametrize("left", [None, b"", BRIDGE[:20]])
def test_ours_stays_while_the_network_writes_its_own_anew(node: Node, left: bytes | None) -> None:
    """What it puts back would else be the first until the agent, which may be away, has looked."""
    node.theirs.write_bytes(BRIDGE)
    node.installer.repair()
    before = node.ours.read_bytes()
    node.theirs.unlink()
    if left is not None:
        node.theirs.write_bytes(left)
    with pytest.raises(AmbitError, match="no network configuration"):
        node.installer.repair()
    assert node.ours.read_bytes() == before


def test_a_folder_that_was_made_anew_is_told_from_an_empty_one(node: Node) -> None:
    """A container goes on seeing the folder that it mounted."""
    descriptor = os.open(node.configurations, os.O_RDONLY)
    try:
        mounted = Path(f"/proc/self/fd/{descriptor}")
        installer = Installer(node.programs, mounted, PluginSettings("/run/ambit/node/cni.sock"))
        with pytest.raises(AmbitError, match="no network configuration"):
            installer.repair()
        node.configurations.rmdir()
        node.configurations.mkdir()
        with pytest.raises(AmbitError, match="was deleted on the node"):
            installer.repair()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("damage", ["remove", "empty", "program", "version"])
async def test_what_somebody_removes_is_repaired(
    running: Node, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if damage in ("program", "version"):
        if damage == "program":
            (running.programs / "ambit").unlink()
        else:
            next((running.programs / ".ambit").glob("*/plugin.pyc")).unlink()
        running.theirs.touch()  # a look is due now, not only after half a minute
        (running.configurations / "note.txt").write_bytes(b"")
    elif damage == "remove":
        running.ours.unlink()
    else:
        running.ours.write_bytes(b"")
    await until(lambda: (running.programs / "ambit").exists() and running.ours.exists())
    await until(lambda: any((running.programs / ".ambit").glob("*/plugin.pyc")))
    await until(lambda: running.ours.stat().st_size > 0 and running.network() == "pods")


async def test_a_changed_network_is_followed(running: Node) -> None:
    running.theirs.write_bytes(BRIDGE.replace(b"pods", b"next"))
    await until(lambda: running.network() == "next")


async def test_a_lost_network_is_a_problem_until_it_is_back(running: Node) -> None:
    running.theirs.unlink()
    await until(lambda: "no network configuration" in running.installer.problem)
    running.theirs.write_bytes(BRIDGE)
    await until(lambda: running.installer.problem == "")
    assert running.network() == "pods"


class Server:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def get(self, *_: object) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


LEAVING = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
ABSENT = NotFound(404, "NotFound", "")


@pytest.mark.parametrize(
    ("answers", "ends", "deleted"),
    [
        ([{"metadata": {"name": "ambit-node"}}], True, False),
        ([LEAVING], False, True),
        ([ABSENT], False, True),
        ([ABSENT, {"metadata": {"name": "ambit-node"}}], True, False),
        ([LEAVING, ABSENT, {"metadata": {"name": "ambit-node"}}], False, False),
        ([ABSENT, Forbidden(403, "Forbidden", ""), {"metadata": {}}], False, True),
        ([ABSENT, Unauthorized(401, "Unauthorized", ""), {"metadata": {}}], False, True),
        ([ABSENT, Unreachable("no")], False, False),
        ([Forbidden(403, "Forbidden", ""), Unauthorized(401, "Unauthorized", "")], True, True),
        ([Unreachable("no"), ABSENT], False, True),
        ([Forbidden(403, "Forbidden", "")], True, False),
        ([Unreachable("no")], True, False),
        # `kubectl delete pod --force`, or new keys of the cluster: the token is refused, the DaemonSet is there.
        ([Unauthorized(401, "Unauthorized", "")], False, False),
        ([Unauthorized(401, "Unauthorized", ""), {"metadata": {"name": "ambit-node"}}], False, False),
    ],
)
async def test_only_a_deleted_agent_takes_the_plugin_away(
    answers: list[Any], ends: bool, deleted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DOUBT", 0.3)
    monkeypatch.setattr(module, "_ASK_AGAIN", 0.02)
    server = cast(Client, Server(*answers))
    assert await is_deleted(server, "ambit-system", "ambit-node", lambda: ends) is deleted
