"""Servers that greet and echo, and connections to them that are used all the time."""

import subprocess

from ambit.testing.mesh import Mesh

PORTS = (9000, 9001)
SERVER = """
import socket, threading
def echo(connection):
    with connection:
        connection.sendall(b"hello")
        while data := connection.recv(1000):
            connection.sendall(data)
def serve(port):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1000)
    while True:
        threading.Thread(target=echo, args=[server.accept()[0]], daemon=True).start()
for port in (9000, 9001):
    threading.Thread(target=serve, args=[port]).start()
"""
# Says something every 20 ms and tells when (on the clock that all processes share) it was not answered any more.
_TALK = """
import select, socket, sys, time
dialled = socket.create_connection((sys.argv[1], 9000), 60)
assert dialled.recv(5) == b"hello"
print("open", flush=True)
try:
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        dialled.sendall(b"x")
        assert dialled.recv(1) == b"x", "closed"
except (OSError, AssertionError) as problem:
    print("cut", time.monotonic(), repr(problem), flush=True)
else:
    print("alive", flush=True)
"""
# Connects anew all the time, and tells what failed, or how often it went well.
_CALLS = """
import select, socket, sys, time
well = 0
while not select.select([sys.stdin], [], [], 0.03)[0]:
    try:
        with socket.create_connection((sys.argv[1], 9000), 30) as dialled:
            assert dialled.recv(5) == b"hello", "closed"
    except (OSError, AssertionError) as problem:
        print("failed", repr(problem), "after", well, "at", time.time(), flush=True)
        break
    well += 1
    if well == 1:
        print("open", flush=True)
else:
    print("well", well, flush=True)
"""


class Talk:
    """A connection to the server that is used all the time."""

    _script = _TALK

    def __init__(self, mesh: Mesh, namespace: str, name: str, address: str) -> None:
        words = ("exec", "-i", "-n", namespace, name, "--", "python3", "-uc", self._script, address)
        self._process = mesh.popen(*words, stdin=subprocess.PIPE)
        assert self._said() == ["open"]

    def cut_at(self) -> float:
        """When it was cut; waits for that."""
        word, moment, *_ = self._said()
        assert word == "cut"
        self.end()
        return float(moment)

    def last_word(self) -> str:
        """Ends it, if it has not been cut: `alive`."""
        said, _ = self._process.communicate("end\n")
        return said.strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _said(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()


class Calls(Talk):
    """New connections to the server, one after the other."""

    _script = _CALLS
