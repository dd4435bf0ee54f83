"""How a connection ends that is denied or cannot be made: at once, without a byte; and what a server says before it
resets its connection arrives. Whether the end is a reset is up to Envoy (docs/limits.md)."""

import itertools
import socket

import pytest

from ambit.model.policy import Action, Authorization, Clause, Match, Rule, Scope
from tests.plan.dataplane.conftest import Mesh
from tests.plan.dataplane.network import REFUSED, Host, read_all
from tests.plan.dataplane.served import until

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
QUESTION = b"GET / HTTP/1.0\r\n\r\n"
_ports = itertools.count(8520)
"""Each test its own: what accepts on one goes on until the end."""


def deny(port: int) -> Authorization:
    rule = Rule((Clause((Match(destination_ports=(port,)),)),))
    return Authorization("closed", "default", Scope.NAMESPACE, Action.DENY, (rule,))


def greet(connection: socket.socket, _: str) -> None:
    """Speaks first, so that any way through would show."""
    connection.sendall(b"hello")


def ending(client: Host, address: object, port: int, *, talks: bool) -> str:
    """What came before the end."""
    try:
        with client.connect(str(address), port) as connection:
            if talks:
                connection.sendall(QUESTION)
            return read_all(connection).decode()
    except TimeoutError:
        return "no end"
    except OSError:
        return ""


@pytest.mark.parametrize("talks", [True, False])
@pytest.mark.parametrize("how", ["denied", "reserved", "nobody listens"])
@pytest.mark.parametrize("way", ["same node", "tunnel", "plaintext"])
def test_it_ends_at_once_without_a_byte(mesh: Mesh, outside: Host, way: str, how: str, talks: bool) -> None:
    server = mesh.pods["near" if way == "same node" else "far"]
    client = outside if way == "plaintext" else mesh.pods["a"]
    denied, open_to_all, unused = (next(_ports) for _ in range(3))
    mesh.policies = [deny(denied)]
    mesh.update()
    with server.listen(denied, greet), server.listen(open_to_all, greet):
        until(lambda: client.ask(server.four, denied) == REFUSED, "the policy to be in force")
        port = {"denied": denied, "reserved": 15006, "nobody listens": unused}[how]
        assert ending(client, server.four, port, talks=talks) == ""
        assert ending(client, server.four, open_to_all, talks=talks) == "hello"


@pytest.mark.parametrize("way", ["same node", "plaintext", "passed through"])
def test_what_a_server_says_before_it_resets_arrives(mesh: Mesh, outside: Host, way: str) -> None:
    """As HTTP servers do that refuse a long body: they answer, and close with bytes unread. The whole body is there
    before they do: Envoy writes before it reads, so what it still had to write would meet the reset first."""
    server = {"same node": mesh.pods["near"], "plaintext": mesh.pods["near"], "passed through": outside}[way]
    client = outside if way == "plaintext" else mesh.pods["a"]
    answer = b"HTTP/1.0 413 Too Large\r\n\r\n"
    body = bytes(50_000)

    def refuse(connection: socket.socket, _: str) -> None:
        connection.recv(len(body), socket.MSG_PEEK | socket.MSG_WAITALL)
        connection.recv(1)
        connection.sendall(answer)

    port = next(_ports)
    with server.listen(port, refuse):
        for _ in range(10):
            with client.connect(server.four, port) as connection:
                connection.sendall(body)
                assert connection.recv(1000) == answer
