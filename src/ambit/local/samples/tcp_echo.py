"""Istio's tcp-echo: answers each line with a prefix before it. argv: ports separated by commas, prefix."""

import os
import signal
import socket
import sys
import threading

from ambit.local.samples.web import listen, say


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ports, prefix = sys.argv[1].split(","), sys.argv[2]
    for port in ports:
        listener = listen(int(port))
        say(f"listening on [::]:{port}, prefix: {prefix}")
        threading.Thread(target=_serve, args=(listener, prefix.encode()), daemon=True).start()
    signal.pause()


def _serve(listener: socket.socket, prefix: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_echo, args=(connection, prefix), daemon=True).start()


def _echo(connection: socket.socket, prefix: bytes) -> None:
    with connection, connection.makefile("rb") as stream:
        try:
            for line in stream:
                connection.sendall(prefix + b" " + line)
        except OSError:
            return
