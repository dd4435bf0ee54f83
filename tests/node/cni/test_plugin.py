"""The plugin as a container runtime runs it: environment and standard input in, one JSON object out."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.node.cni import plugin

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u1"
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/var/run/netns/cni-1"}],
    "ips": [
        {"interface": 1, "address": "10.244.1.5/24", "gateway": "10.244.1.1"},
        {"interface": 1, "address": "fd00::5/64"},
        {"interface": 0, "address": "10.244.1.1/24"},
    ],
    "dns": {},
    "unknown to us": [1],
}


class Answer:
    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status, self.errors = status, errors
        self.value: Any = json.loads(output) if output else None


def run(command: str, socket_path: Path, arguments: str = POD, **changes: Any) -> Answer:
    configuration = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "ambit",
        "socket": str(socket_path),
        "systemNamespaces": ["kube-system"],
        "prevResult": RESULT,
        **changes,
    }
    return run_raw(command, json.dumps(configuration), arguments)


def run_raw(command: str, text: str, arguments: str = POD) -> Answer:
    done = subprocess.run(
        [sys.executable, "-I", "-S", plugin.__file__],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "s1",
            "CNI_NETNS": "/var/run/netns/cni-1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": arguments,
        },
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Agent:
    """Answers each connection's one line with what `reply` makes of it; None ends the connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], bytes | None] = lambda _: b'{"ok":true,"enrolled":true}\n'
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def listen(self) -> None:
        self._server.listen()
        self._thread.start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                self.seen.append(json.loads(lines.readline()))
                answer = self.reply(self.seen[-1])
                if answer is not None:
                    with contextlib.suppress(BrokenPipeError):
                        connection.sendall(answer)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "cni.sock")
    agent.listen()
    yield agent
    agent.close()


def test_a_pod_is_announced_and_the_result_passed_on(agent: Agent) -> None:
    answer = run("ADD", agent.path)
    assert (answer.status, answer.value) == (0, RESULT)
    assert agent.seen == [
        {
            "command": "add",
            "namespace": "shop",
            "name": "web-0",
            "uid": "u1",
            "sandbox": "s1",
            "netns": "/var/run/netns/cni-1",
            "ips": ["10.244.1.5", "fd00::5"],
        }
    ]


def test_a_refusal_of_the_agent_stops_the_pod_for_now(agent: Agent) -> None:
    agent.reply = lambda _: b'{"ok":false,"error":"Envoy is not connected"}\n'
    answer = run("ADD", agent.path)
    assert answer.status == 1
    assert answer.value == {"cniVersion": "1.0.0", "code": 11, "msg": "ambit: Envoy is not connected"}
    agent.reply = lambda _: b'{"enrolled":true}\n'
    assert run("ADD", agent.path).value["code"] == 11


@pytest.mark.parametrize("reply", [None, b"[]\n", b"nonsense\n", b'{"ok":tr'])
def test_no_understandable_answer_is_no_answer(agent: Agent, reply: bytes | None) -> None:
    agent.reply = lambda _: reply
    with pytest.raises(plugin.Away):
        plugin.ask(str(agent.path), {"command": "add"}, 0, 60)
    # It tries again while the agent may be back.
    agent.reply = lambda _: reply if len(agent.seen) < 4 else b'{"ok":true}\n'
    assert plugin.ask(str(agent.path), {"command": "add"}, 60, 60) == {"ok": True}


def test_an_agent_that_hangs_is_given_up(agent: Agent) -> None:
    done = threading.Event()
    agent.reply = lambda _: b"" if done.wait(60) else None
    with pytest.raises(plugin.Away, match="no answer"):
        plugin.ask(str(agent.path), {"command": "add"}, 60, 0.2)
    done.set()


def test_without_the_agent_a_pod_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "RETURN", 0.1)
    for name, value in {"CNI_ARGS": POD, "CNI_CONTAINERID": "s1", "CNI_NETNS": "/n"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(plugin.Refused, match=r"shop/web-0 waits .*No such file.*app=ztunnel") as refused:
        plugin.run("ADD", {"socket": str(tmp_path / "cni.sock"), "prevResult": RESULT})
    assert refused.value.code == 11


def test_a_system_pod_starts_without_the_agent_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run("ADD", tmp_path / "cni.sock", POD.replace("=shop", "=kube-system"))
    assert (answer.status, answer.value) == (0, RESULT)
    assert "starts without the node agent" in answer.errors

    def pause(_: float) -> None:
        pytest.fail("it waits")

    monkeypatch.setattr("ambit.node.cni.plugin.time.sleep", pause)
    names = {"CNI_ARGS": POD.replace("=shop", "=kube-system"), "CNI_CONTAINERID": "s1", "CNI_NETNS": "/n"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    settings = {
        "socket": str(tmp_path / "cni.sock"),
        "systemNamespaces": ["kube-system"],
        "prevResult": RESULT,
    }
    assert plugin.run("ADD", settings) == RESULT
    assert "starts without the node agent" in capsys.readouterr().err


def test_a_system_pod_obeys_an_agent_that_is_there(agent: Agent) -> None:
    agent.reply = lambda _: b'{"ok":false,"error":"no certificate"}\n'
    assert run("ADD", agent.path, POD.replace("=shop", "=kube-system")).status == 1


def test_an_agent_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "cni.sock")  # bound, so refusing, until it listens
    timer = threading.Timer(0.4, agent.listen)
    timer.start()
    try:
        assert plugin.ask(str(agent.path), {"command": "add"}, 60, 60) == {"ok": True, "enrolled": True}
    finally:
        timer.join()
        agent.close()


def test_a_sandbox_that_is_no_pod_passes(tmp_path: Path) -> None:
    assert run("ADD", tmp_path / "none", "IgnoreUnknown=1").value == RESULT
    assert run("DEL", tmp_path / "none", "").status == 0


@pytest.mark.parametrize(
    ("changes", "arguments", "code"),
    [
        ({"prevResult": None}, POD, 7),
        ({"socket": "relative"}, POD, 7),
        ({}, POD.replace("K8S_POD_UID=u1", ""), 7),
    ],
)
def test_a_wrong_configuration_refuses(
    agent: Agent, changes: dict[str, Any], arguments: str, code: int
) -> None:
    answer = run("ADD", agent.path, arguments, **changes)
    assert (answer.status, answer.value["code"]) == (1, code)
    assert agent.seen == []


@pytest.mark.parametrize(("text", "code"), [("", 6), ("[]", 6), ("{", 6)])
def test_nonsense_refuses(text: str, code: int) -> None:
    assert run_raw("ADD", text).value["code"] == code


def test_unknown_commands_refuse() -> None:
    assert run_raw("FLY", "{}").value["code"] == 4
    assert run_raw("", "{}").value["code"] == 4


def test_the_end_of_a_pod_is_told_and_never_held_up(agent: Agent, tmp_path: Path) -> None:
    assert (run("DEL", agent.path).status, agent.seen[0]["command"]) == (0, "del")
    agent.reply = lambda _: b'{"ok":false,"error":"Envoy has sockets there"}\n'
    answer = run("DEL", agent.path)
    assert (answer.status, answer.value) == (0, None)
    assert "Envoy has sockets there" in answer.errors
    assert run("DEL", tmp_path / "none").status == 0


def test_other_commands(tmp_path: Path) -> None:
    version = run_raw("VERSION", '{"cniVersion":"0.4.0"}', "").value
    assert version == {"cniVersion": "0.4.0", "supportedVersions": list(plugin.VERSIONS)}
    for command in ("CHECK", "STATUS", "GC"):
        answer = run(command, tmp_path / "none")
        assert (answer.status, answer.value) == (0, None)
    assert run("CHECK", tmp_path / "none", prevResult=None).value["code"] == 7


def test_it_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import runpy, sys; runpy.run_path(sys.argv[1])", plugin.__file__],
        env=dict(os.environ, PYTHONPATH="/nowhere"),
        check=False,
    )
    assert done.returncode == 0
