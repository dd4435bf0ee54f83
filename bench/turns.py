"""Runs in a pod: asks the same on many kept connections again and again, and tells when answers became others.

    turns.py HOST PORT CONNECTIONS SECONDS HEADER

Prints one JSON list of [monotonic seconds, connection, value of HEADER in the answer], one for each change.
"""

import json
import selectors
import socket
import sys
import time

Seen = list[tuple[float, int, str]]
PAUSE = 0.01
"""Seconds between two rounds: asking must not take the processors from what is measured."""


class Asking:
    """One connection."""

    def __init__(self, number: int, target: tuple[str, int], header: str) -> None:
        self.number, self.target, self.header = number, target, header.lower()
        self.socket = socket.create_connection(target, 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer, self.value = b"", ""

    def ask(self) -> None:
        self.answer = b""
        self.socket.sendall(f"GET / HTTP/1.1\r\nHost: {self.target[0]}\r\n\r\n".encode())

    def read(self, seen: Seen) -> bool:
        """Whether that was all of the answer."""
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit(f"connection {self.number} was closed")
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        lines = (each.partition(":") for each in head.decode().split("\r\n"))
        fields = {name.lower(): value.strip() for name, _, value in lines}
        if not found or len(body) < int(fields.get("content-length", 0)):
            return False
        value = fields.get(self.header, "")
        if value != self.value:
            self.value = value
            seen.append((time.monotonic(), self.number, value))
        return True


def main(host: str, port: str, connections: str, seconds: str, header: str) -> None:
    seen: Seen = []
    end = time.monotonic() + float(seconds)
    all_asking = [Asking(number, (host, int(port)), header) for number in range(int(connections))]
    with selectors.DefaultSelector() as selector:
        for asking in all_asking:
            selector.register(asking.socket, selectors.EVENT_READ, asking)
        while time.monotonic() < end:
            for asking in all_asking:
                asking.ask()
            missing = len(all_asking)
            while missing:
                missing -= sum(key.data.read(seen) for key, _ in selector.select(timeout=10))
            time.sleep(PAUSE)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
