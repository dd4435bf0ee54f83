"""nftables in another network namespace: loading a script, reading a table back."""

import asyncio
import subprocess
from pathlib import Path

from ambit.core.errors import EnvironmentProblem
from ambit.node.netns.enter import in_namespace

_TIMEOUT = 10.0


async def load(netns: str, script: str) -> None:
    """Applies the script, whole or not at all. Raises EnvironmentProblem."""
    await _run(netns, script, "nft", "-f", "-")


def load_here(script: str) -> None:
    """The same in the calling thread's namespace. Blocks. Raises EnvironmentProblem, OSError and
    subprocess.TimeoutExpired."""
    command = "nft", "-f", "-"
    _checked(_done(script, command), " ".join(command))


async def listing(netns: str, table: str, *options: str) -> str:
    """The inet table as nft prints it, without counters and with protocols as numbers; empty when there is none.
    Raises EnvironmentProblem."""
    try:
        return await _run(netns, "", "nft", "-s", "-p", *options, "list", "table", "inet", table)
    except EnvironmentProblem as problem:
        if "No such file or directory" in problem.message and "table inet" in problem.message:
            return ""
        raise


async def _run(netns: str, text: str, *command: str) -> str:
    try:
        done = await asyncio.to_thread(in_namespace, Path(netns), lambda: _done(text, command))
    except subprocess.TimeoutExpired as error:
        raise EnvironmentProblem(
            f"{' '.join(command)} in {netns} takes more than {_TIMEOUT:.0f} s"
        ) from error
    except OSError as error:
        raise EnvironmentProblem(
            f"{' '.join(command)} in {netns} cannot be started: {error.strerror}",
            "the node agent needs CAP_SYS_ADMIN, CAP_NET_ADMIN and the program nft",
        ) from error
    return _checked(done, f"{' '.join(command)} in {netns}")


def _done(text: str, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_TIMEOUT,
    )


def _checked(done: subprocess.CompletedProcess[str], what: str) -> str:
    if done.returncode:
        raise EnvironmentProblem(
            f"{what} failed: {done.stderr.strip()}",
            "the node agent needs CAP_NET_ADMIN and the program nft",
        )
    return done.stdout
