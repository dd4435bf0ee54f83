"""The list of forwards of an instance, and the files from which both forwarders live.

`forwards.json` is the record; the configuration files follow from it. Any process that sees the state
directory may change the list; a lock keeps two of them apart.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ambit.agent.binary import envoy_binary
from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.local.forward import config
from ambit.local.forward.config import Files, Forward
from ambit.local.layout import StateDirectory


class Forwards:
    """The forwards of one instance."""

    def __init__(self, state: StateDirectory) -> None:
        self._directory = state.host
        self.outer = Files(state.host, "outer")
        self.inner = Files(state.host, "inner")

    def entries(self) -> tuple[Forward, ...]:
        """All forwards by host port; empty before the first one. Raises BadInput for a damaged record."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=tuple[Forward, ...])
        except FileNotFoundError:
            return ()
        except msgspec.MsgspecError as error:
            raise BadInput(f"{self._record}: {error}", f"remove {self._record}") from error

    def set(self, name: str, host_port: int, address: Address, port: int, protocol: str = "TCP") -> Forward:
        """Add a forward, or lead the one of this name elsewhere.

        Raises BadInput when another forward has the host port, or a port is none.
        """
        for number in (host_port, port):
            if not 0 < number < 65536:
                raise BadInput(f"{number} is not a port")
        forward = Forward(name, host_port, str(address), port, protocol)

        def change(present: tuple[Forward, ...]) -> tuple[Forward, ...]:
            others = tuple(other for other in present if other.name != name)
            for other in others:
                if other.host_port == host_port:
                    raise BadInput(
                        f"127.0.0.1:{host_port} already leads to {other.name}",
                        "choose another port, or remove that forward",
                    )
            return (*others, forward)

        self._change(change)
        return forward

    def remove(self, name: str) -> bool:
        """Whether there was such a forward."""
        before = self.entries()
        self._change(lambda present: tuple(other for other in present if other.name != name))
        return any(forward.name == name for forward in before)

    def replace(self, forwards: Iterable[Forward]) -> None:
        """Make these all there are. Host ports must differ."""
        whole = tuple(forwards)
        self._change(lambda _: whole)

    def write(self) -> None:
        """Write both configurations anew: before the forwarders start for the first time."""
        self._change(lambda present: present)

    def outer_command(self) -> list[str]:
        """For the host's network namespace. Raises EnvironmentProblem when Envoy is missing."""
        return _command(self.outer)

    def inner_command(self) -> list[str]:
        """For the fabric's network namespace. Raises EnvironmentProblem when Envoy is missing."""
        return _command(self.inner)

    @property
    def _record(self) -> Path:
        return self._directory / "forwards.json"

    def _change(self, change: Callable[[tuple[Forward, ...]], tuple[Forward, ...]]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            forwards = tuple(sorted(change(self.entries()), key=lambda forward: forward.host_port))
            _write(self._record, forwards)
            self._configure(forwards)

    def _configure(self, forwards: tuple[Forward, ...]) -> None:
        """Inside first, so that the outer listener never leads to a socket that nobody will open."""
        _write(self.inner.clusters, config.inner_clusters(forwards))
        _write(self.inner.listeners, config.inner_listeners(self.inner, forwards))
        _write(self.inner.bootstrap, config.bootstrap(self.inner))
        _write(self.outer.clusters, config.outer_clusters(self.inner, forwards))
        _write(self.outer.listeners, config.outer_listeners(forwards))
        _write(self.outer.bootstrap, config.bootstrap(self.outer))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._directory / "forwards.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _command(files: Files) -> list[str]:
    return [
        str(envoy_binary()),
        "--config-path",
        str(files.bootstrap),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warning",
    ]


def _write(path: Path, value: Any) -> None:
    """Replace the file by rename, which is what Envoy watches for; an equal file is left alone."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    if path.is_file() and path.read_bytes() == data:
        return
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)
