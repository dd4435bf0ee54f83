"""Runs inside pods, on the standard library: new connections at a steady rate, and others that stay open.

    python3 rush.py serve PORT
    python3 rush.py rush HOST PORT RATE HELD SECONDS

A server greets new connections on PORT to PORT + 7 (more than one, for there are not enough ports to come from) and
echoes on PORT + 8. `rush` opens RATE connections a second, whether or not earlier ones were answered, and uses each of
HELD others once a second. Prints a JSON object:

    opened     how many were tried
    refused    for each that was not greeted: seconds since the beginning, and what happened
    slowest    seconds until the slowest greeting
    cut        for each that was held and ended: the same as `refused`
    seconds    how long it took to open them all
"""

import contextlib
import json
import select
import socket
import sys
import time

PORTS = 8
GREETING = b"y"
PATIENCE = 15.0
"""Seconds until an answer counts as missing."""
AT_ONCE = 100
"""Connections opened between two looks at answers."""
Failures = list[tuple[float, str]]


def serve(port: int) -> None:
    """Until killed."""
    poll = select.epoll()
    listeners: dict[int, socket.socket] = {}
    echoing = None
    for number in range(PORTS + 1):
        listener = echoing = socket.create_server(
            ("::", port + number), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
        )
        listener.setblocking(False)
        listeners[listener.fileno()] = listener
        poll.register(listener, select.EPOLLIN)
    held: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number in held:
                _echo(poll, held, number)
                continue
            for connection in _accepted(listeners[number]):
                if listeners[number] is echoing:
                    held[connection.fileno()] = connection
                    poll.register(connection, select.EPOLLIN)
                    continue
                with contextlib.suppress(OSError):
                    connection.send(GREETING)
                connection.close()


def _accepted(listener: socket.socket) -> list[socket.socket]:
    found: list[socket.socket] = []
    try:
        while len(found) < AT_ONCE:
            found.append(listener.accept()[0])
    except OSError:
        pass
    return found


def _echo(poll: select.epoll, held: dict[int, socket.socket], number: int) -> None:
    try:
        data = held[number].recv(100)
        held[number].sendall(data)
    except OSError:
        data = b""
    if not data:
        poll.unregister(number)
        held.pop(number).close()


class Rush:
    """`run` does all of it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._poll = select.epoll()
        self._waiting: dict[int, tuple[socket.socket, float]] = {}
        self._held: dict[int, socket.socket] = {}
        self._asked: dict[int, float] = {}
        self._begin = 0.0
        self.opened = 0
        self.slowest = 0.0
        self.refused: Failures = []
        self.cut: Failures = []

    def run(self, rate: float, held: int, seconds: float) -> float:
        """How long it took to open them."""
        for _ in range(held):
            connection = socket.create_connection((self._host, self._port + PORTS), PATIENCE)
            self._held[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)
        self._begin = asked = time.monotonic()
        total, done = int(rate * seconds), 0.0
        while self.opened < total or self._waiting:
            now = time.monotonic()
            due = min(int((now - self._begin) * rate), total) - self.opened
            for _ in range(min(due, AT_ONCE)):
                self._open()
            if self.opened == total and not done:
                done = time.monotonic() - self._begin
            if now - asked > 1.0:
                asked = now
                self._use_held(now)
                self._give_up(now)
            for number, _ in self._poll.poll(0 if due > 0 else 0.001):
                if number in self._held:
                    self._answered(number)
                elif number in self._waiting:
                    self._greeted(number)
        return done

    def _open(self) -> None:
        connection = socket.socket(self._family)
        connection.setblocking(False)
        began = time.monotonic()
        self.opened += 1
        self._waiting[connection.fileno()] = connection, began
        connection.connect_ex((self._host, self._port + self.opened % PORTS))
        self._poll.register(connection, select.EPOLLIN)

    def _greeted(self, number: int) -> None:
        connection, began = self._waiting.pop(number)
        try:
            greeting = connection.recv(10)
        except OSError as problem:
            self._failed(self.refused, type(problem).__name__)
        else:
            if greeting != GREETING:
                self._failed(self.refused, "closed")
        self.slowest = max(self.slowest, time.monotonic() - began)
        connection.close()

    def _give_up(self, now: float) -> None:
        for number in [each for each, (_, began) in self._waiting.items() if now - began > PATIENCE]:
            self._waiting.pop(number)[0].close()
            self._failed(self.refused, "silence")

    def _use_held(self, now: float) -> None:
        for number, connection in list(self._held.items()):
            if now - self._asked.get(number, now) > PATIENCE:
                self._lost(number, "silence")
                continue
            if number not in self._asked:
                self._asked[number] = now
                try:
                    connection.sendall(b"x")
                except OSError as problem:
                    self._lost(number, type(problem).__name__)

    def _answered(self, number: int) -> None:
        try:
            data = self._held[number].recv(100)
        except OSError as problem:
            self._lost(number, type(problem).__name__)
            return
        self._asked.pop(number, None)
        if not data:
            self._lost(number, "closed")

    def _lost(self, number: int, what: str) -> None:
        self._poll.unregister(number)
        self._held.pop(number).close()
        self._asked.pop(number, None)
        self._failed(self.cut, what)

    def _failed(self, failures: Failures, what: str) -> None:
        failures.append((round(time.monotonic() - self._begin, 3), what))


def rush(host: str, port: int, rate: float, held: int, seconds: float) -> dict[str, object]:
    """What happened to all of them."""
    found = Rush(host, port)
    taken = found.run(rate, held, seconds)
    return {
        "opened": found.opened,
        "refused": found.refused,
        "slowest": found.slowest,
        "cut": found.cut,
        "seconds": taken,
    }


def main(words: list[str]) -> None:
    """What the command line says."""
    match words:
        case ["serve", port]:
            serve(int(port))
        case ["rush", host, port, rate, held, seconds]:
            print(json.dumps(rush(host, int(port), float(rate), int(held), float(seconds))))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
