"""Hot restart of both node proxies under load: nothing fails, nothing is cut, identities stay right."""

import socket
import threading

import pytest

from tests.plan.dataplane.conftest import Mesh, service, tunnel_log
from tests.plan.dataplane.network import REFUSED, Host

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


class Load:
    """Asks again and again until it is stopped."""

    def __init__(self, client: Host, address: str, port: int, answer: str) -> None:
        self.failures: list[str] = []
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(client, address, port, answer))
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, client: Host, address: str, port: int, answer: str) -> None:
        while not self._stop.is_set():
            heard = client.ask(address, port)
            self.count += 1
            if heard != answer:
                self.failures.append(heard)


def echo(connection: socket.socket, _: str) -> None:
    while part := connection.recv(100):
        connection.sendall(part)


@pytest.mark.feature("N62")
def test_hot_restart_under_load(mesh: Mesh) -> None:
    """The second one gets a further thread."""
    a, b, near, far = (mesh.pods[name] for name in ("a", "b", "near", "far"))
    mesh.services = [service("10.99.0.50")]
    mesh.serve(service().key, {"far": 8400})
    with near.listen(8400), far.listen(8400), far.listen(8401, echo), a.connect(far.four, 8401) as held:
        held.sendall(b"1")
        assert held.recv(10) == b"1"
        loads = [
            Load(a, str(far.four), 8400, f"{a.four} 2"),
            Load(b, "10.99.0.50", 80, f"{b.four} 2"),
            Load(a, str(near.six), 8400, f"{a.six} 2"),
        ]
        for agent, concurrency in ((near.agent, 1), (far.agent, 2)):
            agent.concurrency = concurrency
            agent.restart()
            assert agent.generations == [True, True]
        for load in loads:
            load.finish()
        held.sendall(b"2")
        assert held.recv(10) == b"2"
        assert [load.failures for load in loads] == [[], [], []]
        assert min(load.count for load in loads) > 10
        assert b.ask(far.four, 8402) == REFUSED
    peers = {(each.client, each.identity) for each in tunnel_log(mesh, far, 8400, count=20)}
    assert peers == {(str(a.four), a.identity.uri), (str(b.four), b.identity.uri)}
