"""A container's log in the CRI format: `<RFC 3339 time> <stdout|stderr> <F|P> <line>`, rotated once at a size
limit.
"""

import contextlib
import os
import time

LIMIT = 10 * 1024 * 1024
LONGEST_LINE = 16 * 1024
ROTATED = ".1"


class LogFile:
    """Both streams of one attempt of one container."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._open()
        self._rest = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, data: bytes) -> None:
        """`data` as read from the pipe; b"" ends the stream and flushes an unfinished line."""
        stamp = _timestamp()
        prefix = f"{stamp} {stream} ".encode()
        if not data:
            rest, self._rest[stream] = self._rest[stream], b""
            if rest:
                self._append(prefix + b"F " + rest + b"\n")
            return
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        out = []
        for line in lines:
            while len(line) > LONGEST_LINE:
                out.append(prefix + b"P " + line[:LONGEST_LINE] + b"\n")
                line = line[LONGEST_LINE:]
            out.append(prefix + b"F " + line + b"\n")
        while len(rest) > LONGEST_LINE:
            out.append(prefix + b"P " + rest[:LONGEST_LINE] + b"\n")
            rest = rest[LONGEST_LINE:]
        self._rest[stream] = rest
        if out:
            self._append(b"".join(out))

    def close(self) -> None:
        for stream in self._rest:
            self.write(stream, b"")
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _append(self, data: bytes) -> None:
        """A full disk loses log lines, never the container."""
        try:
            os.write(self._descriptor, data)
            self._size += len(data)
            if self._size > LIMIT:
                self._rotate()
        except OSError:
            self._size += len(data)

    def _rotate(self) -> None:
        """The former descriptor is closed last: while there is no new file, lines go on in the old one."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path, self._path + ROTATED)
        former = self._descriptor
        self._open()
        os.close(former)


def _timestamp() -> str:
    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 10**9))}.{now % 10**9:09d}Z"
