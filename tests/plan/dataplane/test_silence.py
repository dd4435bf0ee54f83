"""Peers that vanish without a word: nobody is left holding a connection to them for good."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from ambit.envoy import defaults
from tests.plan.dataplane.conftest import Mesh

pytestmark = [pytest.mark.netns, pytest.mark.envoy]

PORT = 8600
PATIENCE = 60.0
"""Seconds for one or two; who were not told would wait for good."""


@pytest.fixture
def impatient(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    """The mesh with keepalives that take seconds where they take half a minute, or half an hour."""
    with monkeypatch.context() as patch:
        for name, value in {
            "PING_INTERVAL": 1.0,
            "PING_TIMEOUT": 5.0,
            "KEEPALIVE_IDLE": 1,
            "KEEPALIVE_INTERVAL": 1,
            "KEEPALIVE_PROBES": 2,
        }.items():
            patch.setattr(defaults, name, value)
        mesh.update()
        yield mesh
    mesh.update()


@pytest.mark.feature("F148")
def test_both_sides_of_a_tunnel_notice_that_the_other_is_gone(impatient: Mesh) -> None:
    a, far = impatient.pods["a"], impatient.pods["far"]
    server_noticed = threading.Event()

    def echo(connection: socket.socket, _: str) -> None:
        try:
            while part := connection.recv(100):
                connection.sendall(part)
        finally:
            server_noticed.set()

    with far.listen(PORT, echo), a.connect(far.four, PORT, timeout=PATIENCE) as held:
        held.sendall(b"1")
        assert held.recv(10) == b"1"
        with impatient.network.unplugged(far):
            with contextlib.suppress(ConnectionResetError):
                assert held.recv(10) == b""
            assert server_noticed.wait(PATIENCE)
