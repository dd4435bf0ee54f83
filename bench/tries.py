"""Runs inside pods, on the standard library: a request on a connection of its own, again and again at a steady rate.

    python3 tries.py RATE SECONDS HOST:PORT...

Prints for each place the list of its tries, in the order of their ends: [monotonic time of its beginning, of its end,
"" or why it failed]. None waits for another, so one that hears nothing hides no answer of a later one.
"""

import json
import selectors
import socket
import sys
import time

PATIENCE = 15.0
"""Seconds until an answer counts as missing."""
LOOK = 0.001
Tries = list[tuple[float, float, str]]


class Try:
    """One connection with one request."""

    def __init__(self, place: str, now: float) -> None:
        self.place, self.began, self.answer, self.asked = place, now, b"", False
        host, _, port = place.rpartition(":")
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex((host, int(port)))

    def ready(self) -> str | None:
        """What became of it, None while it goes on."""
        try:
            if not self.asked:
                self.asked = True
                host = self.place.rpartition(":")[0]
                self.socket.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return None
            data = self.socket.recv(4096)
        except OSError as problem:
            return type(problem).__name__
        self.answer += data
        status, whole, _ = self.answer.partition(b"\r\n")
        if whole:
            code = status.decode(errors="replace").split(" ")[1:2]
            return "" if code == ["200"] else " ".join(code) or "nonsense"
        return None if data else "closed"


def tries(rate: float, seconds: float, places: list[str]) -> dict[str, Tries]:
    """Begins for `seconds`, and ends when all have ended."""
    found: dict[str, Tries] = {place: [] for place in places}
    selector = selectors.DefaultSelector()
    waiting: dict[Try, None] = {}
    begin, begun = time.monotonic(), 0

    def end(each: Try, what: str) -> None:
        selector.unregister(each.socket)
        each.socket.close()
        del waiting[each]
        found[each.place].append((each.began, time.monotonic(), what))

    while (now := time.monotonic()) < begin + seconds or waiting:
        if now < begin + seconds and (now - begin) * rate >= begun:
            begun += 1
            for place in places:
                each = Try(place, time.monotonic())
                waiting[each] = None
                selector.register(each.socket, selectors.EVENT_WRITE, each)
        for key, _ in selector.select(LOOK):
            what = key.data.ready()
            if what is not None:
                end(key.data, what)
            elif key.events == selectors.EVENT_WRITE:
                selector.modify(key.data.socket, selectors.EVENT_READ, key.data)
        for each in [each for each in waiting if now - each.began > PATIENCE]:
            end(each, "silence")
    return found


def main(words: list[str]) -> None:
    """What the command line says."""
    match words:
        case [rate, seconds, *places] if places:
            print(json.dumps(tries(float(rate), float(seconds), places)))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
