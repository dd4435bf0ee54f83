"""Somebody in an older Envoy's place while its successor still asks it: one that died, or one that is to end.

A successor asks its parent every few seconds for statistics, and for the socket of each new listener, until it has
ended it. When the parent is gone too early, stock Envoy retries on its main thread (policies stand still meanwhile) and
aborts after ten seconds; when the parent dies with a question unanswered it waits for ever. So the parent's place on
its datagram socket is taken by a process that says that there is nothing to report and no socket to inherit
(`answers`). It is not the agent itself, which may be away for longer than those ten seconds.
"""

import contextlib
import socket
import sys
from pathlib import Path

import msgspec

from ambit.agent.supervise.generation import Generation, spawn
from ambit.node.supervise import answers

_SLOTS = 3
"""Envoy numbers its sockets by epoch modulo three (`MaxConcurrentProcesses`)."""


class Place(msgspec.Struct, frozen=True):
    """Of generation `epoch` of `base_id` among the sockets of `run`."""

    run: Path
    base_id: int
    epoch: int

    @property
    def parent(self) -> Path:
        """Where its successor asks."""
        return self._socket("parent", self.epoch)

    @property
    def aside(self) -> Path:
        """Where the generation itself still listens while somebody else is in its place."""
        return self._socket("leaving", self.epoch)

    @property
    def successor(self) -> Path:
        """Where its successor waits for answers."""
        return self._socket("child", self.epoch + 1)

    def _socket(self, role: str, epoch: int) -> Path:
        return self.run / f"restart_{role}_{self.base_id * 10 + epoch % _SLOTS}"


async def take(place: Place, successor: Generation, log: Path, *, lives: bool) -> None:
    """Puts a process in the place of a generation for as long as its successor runs and asks. The socket of a
    generation that still `lives` is kept aside, for `terminate`. What the process says goes to `log`.

    Raises OSError or EnvironmentProblem: the place is then nobody's, and to be taken again.
    """
    if lives and not place.aside.exists():
        place.parent.rename(place.aside)
    place.parent.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(str(place.parent))
        if not lives:
            place.aside.unlink(missing_ok=True)
        proc = (successor.seen, successor.seen_pid) if successor.foreign else ("/proc", successor.pid)
        argv = [sys.executable, "-I", "-S", str(answers.__file__), str(taken.fileno())]
        own = place.parent.stat().st_ino
        argv += map(str, (place.parent, own, place.aside, *proc, successor.start_time))
        await spawn(argv, log, keep=(taken.fileno(),))


def release(place: Place) -> None:
    """Answers what the successor asked the dead, which it waits for. Never when it does not wait: it would take the
    answer for that to its next question, and aborts when their kinds differ."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(answers.NOTHING_TO_REPORT, str(place.successor))


def terminate(place: Place) -> None:
    """Ends the generation as its successor would: by a message, which reaches a process of another namespace too.
    Raises OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.sendto(answers.TERMINATE, str(place.aside if place.aside.exists() else place.parent))
