"""A small load generator that needs nothing but a Python; runs inside pods, so it imports nothing of ours.

load.py sink PORT                              takes bytes, answers each connection's end with their number
load.py bulk HOST PORT STREAMS SECONDS         {"gbps"}
load.py requests HOST PORT CONNECTIONS SECONDS keep|close   {"rate", "p50_us", "p99_us", "errors"}
load.py first HOST:PORT...                     {"seconds": [...]}: connect, one request, first byte of the answer
load.py dns NAME COUNT                         {"seconds": [...]}: one UDP question each, of the pod's own resolver
load.py hold HOST PORT CONNECTIONS FILE        opens them, has an answer on each, makes the file, and keeps them
"""

import json
import resource
import selectors
import socket
import struct
import sys
import threading
import time

CHUNK = bytes(256 * 1024)
PAUSE = 0.01
"""Seconds after a connection that was refused."""


def sink(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_swallow, args=(connection,), daemon=True).start()


def _swallow(connection: socket.socket) -> None:
    buffer = bytearray(len(CHUNK))
    total = 0
    with connection:
        while count := connection.recv_into(buffer):
            total += count
        connection.sendall(struct.pack("!Q", total))


def bulk(host: str, port: int, streams: int, seconds: float) -> dict[str, float]:
    taken = [0] * streams
    started = time.perf_counter()

    def stream(number: int) -> None:
        with socket.create_connection((host, port), timeout=10) as connection:
            while time.perf_counter() - started < seconds:
                connection.sendall(CHUNK)
            connection.shutdown(socket.SHUT_WR)
            taken[number] = struct.unpack("!Q", connection.recv(8, socket.MSG_WAITALL))[0]

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"gbps": sum(taken) * 8 / (time.perf_counter() - started) / 1e9}


class Client:
    """One connection that asks again as soon as it has its answer, and connects again when it is lost, until `end`."""

    def __init__(
        self, selector: selectors.BaseSelector, target: tuple[str, int], keep: bool, end: float
    ) -> None:
        self.selector, self.target, self.keep, self.end = selector, target, keep, end
        ending = "" if keep else "Connection: close\r\n"
        self.request = f"GET / HTTP/1.1\r\nHost: {target[0]}\r\n{ending}\r\n".encode()
        self.times: list[float] = []
        self.errors = 0
        self.open()

    def open(self) -> None:
        self.answer, self.began = b"", time.perf_counter()
        while time.perf_counter() < self.end:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.socket.connect(self.target)
                self.socket.sendall(self.request)
            except OSError:
                self.errors += 1
                self.socket.close()
                time.sleep(PAUSE)
                continue
            self.selector.register(self.socket, selectors.EVENT_READ, self)
            return

    def readable(self) -> None:
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        whole = bool(found) and len(body) >= _length(head)
        if data and not whole:
            return
        if whole and b" 200 " in head[:32]:
            self.times.append(time.perf_counter() - self.began)
        else:
            self.errors += 1
        if self.keep and data and self._ask_again():
            return
        # Whoever has the whole answer closes; servers linger for up to a second to let the client do that.
        self.selector.unregister(self.socket)
        self.socket.close()
        self.open()

    def _ask_again(self) -> bool:
        self.answer, self.began = b"", time.perf_counter()
        try:
            self.socket.sendall(self.request)
        except OSError:
            self.errors += 1
            return False
        return True


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def requests(host: str, port: int, connections: int, seconds: float, mode: str) -> dict[str, float]:
    selector = selectors.DefaultSelector()
    started = time.perf_counter()
    clients = [Client(selector, (host, port), mode == "keep", started + seconds) for _ in range(connections)]
    while (elapsed := time.perf_counter() - started) < seconds:
        for key, _ in selector.select(timeout=0.5):
            key.data.readable()
    times = sorted(each for client in clients for each in client.times)
    return {
        "rate": len(times) / elapsed,
        "p50_us": times[len(times) // 2] * 1e6 if times else 0.0,
        "p99_us": times[int(len(times) * 0.99)] * 1e6 if times else 0.0,
        "errors": sum(client.errors for client in clients),
    }


def first(targets: list[str]) -> dict[str, list[float]]:
    times = []
    for target in targets:
        host, _, port = target.rpartition(":")
        began = time.perf_counter()
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            if not connection.recv(1):
                raise SystemExit(f"{target}: closed without an answer")
            times.append(time.perf_counter() - began)
    return {"seconds": times}


def dns(name: str, count: int) -> dict[str, list[float]]:
    with open("/etc/resolv.conf") as file:
        server = next(line.split()[1] for line in file if line.startswith("nameserver"))
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.rstrip(".").split("."))
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.connect((server, 53))
        for number in range(count):
            question = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
            began = time.perf_counter()
            asker.send(question)
            answer = asker.recv(4096)
            times.append(time.perf_counter() - began)
            if struct.unpack("!H", answer[6:8])[0] == 0:
                raise SystemExit(f"{name}: no address")
    return {"seconds": times}


def hold(host: str, port: int, connections: int) -> list[socket.socket]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[socket.socket] = []
    for _ in range(connections):
        connection = socket.create_connection((host, port), timeout=10)
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{host}:{port}: no answer on connection {len(opened) + 1}")
        opened.append(connection)
    return opened


def main(words: list[str]) -> None:
    match words:
        case ["sink", port]:
            sink(socket.create_server(("", int(port)), backlog=64))
        case ["bulk", host, port, streams, seconds]:
            print(json.dumps(bulk(host, int(port), int(streams), float(seconds))))
        case ["requests", host, port, connections, seconds, mode]:
            print(json.dumps(requests(host, int(port), int(connections), float(seconds), mode)))
        case ["first", *targets]:
            print(json.dumps(first(targets)))
        case ["dns", name, count]:
            print(json.dumps(dns(name, int(count))))
        case ["hold", host, port, connections, path]:
            kept = hold(host, int(port), int(connections))
            with open(path, "x") as file:
                file.write(f"{len(kept)}\n")
            threading.Event().wait()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
