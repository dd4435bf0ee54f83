"""Runs inside pods, on the standard library: connects all the time, and tells when the answer changed.

    python3 knock.py serve PORT
    python3 knock.py knock SECONDS PORT HOST...
    python3 knock.py hold SECONDS PORT HOST...

A server greets. `knock` connects anew all the time; `hold` keeps a connection until it is ended, and connects again.
Prints for each host the list of changes: [monotonic time when it was known, whether it was greeted].
"""

import contextlib
import json
import socket
import sys
import threading
import time

GREETING = b"hello"
PAUSE = 0.001
PATIENCE = 5.0
Changes = list[tuple[float, bool]]


def serve(port: int) -> None:
    """Greets, and keeps connections until the client ends them."""

    def greet(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(GREETING)
                connection.recv(1)
            except OSError:
                return

    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1000)
    while True:
        threading.Thread(target=greet, args=(server.accept()[0],), daemon=True).start()


def dial(host: str, port: int) -> socket.socket | None:
    """A connection that was greeted."""
    try:
        connection = socket.create_connection((host, port), PATIENCE)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if connection.recv(len(GREETING)) == GREETING:
            return connection
    connection.close()
    return None


def knock(host: str, port: int, end: float) -> Changes:
    """When the answer to new connections changed."""
    changes: Changes = []
    while time.monotonic() < end:
        connection = dial(host, port)
        is_greeted = connection is not None
        if connection is not None:
            connection.close()
        if not changes or changes[-1][1] != is_greeted:
            changes.append((time.monotonic(), is_greeted))
        time.sleep(PAUSE)
    return changes


def hold(host: str, port: int, end: float) -> Changes:
    """When a connection was greeted, and when it was ended."""
    changes: Changes = []
    while time.monotonic() < end:
        connection = dial(host, port)
        if connection is None:
            time.sleep(PAUSE)
            continue
        with connection:
            changes.append((time.monotonic(), True))
            connection.settimeout(max(PAUSE, end - time.monotonic()))
            try:
                connection.recv(1)
            except TimeoutError:
                return changes
            except OSError:
                pass
            changes.append((time.monotonic(), False))
    return changes


def main(words: list[str]) -> None:
    """What the command line says."""
    if words[0] == "serve":
        serve(int(words[1]))
    watch = {"knock": knock, "hold": hold}[words[0]]
    end, port = time.monotonic() + float(words[1]), int(words[2])
    found: dict[str, Changes] = {}
    threads = [
        threading.Thread(target=lambda host=host: found.update({host: watch(host, port, end)}))
        for host in words[3:]
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
