"""nftables in another network namespace: loading a script, reading a table back."""

import asyncio

from ambit.core.errors import EnvironmentProblem


async def load(netns: str, script: str) -> None:
    """Applies the script, whole or not at all. Raises EnvironmentProblem."""
    await _run(netns, script, "nft", "-f", "-")


async def listing(netns: str, table: str, *options: str) -> str:
    """The inet table as nft prints it, without counters; empty when there is none. Raises EnvironmentProblem."""
    try:
        return await _run(netns, "", "nft", "-s", *options, "list", "table", "inet", table)
    except EnvironmentProblem as problem:
        if "No such file or directory" in problem.message and "table inet" in problem.message:
            return ""
        raise


async def _run(netns: str, text: str, *command: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "nsenter",
            f"--net={netns}",
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"nsenter cannot be started: {error.strerror}", "install the package util-linux"
        ) from error
    output, complaint = await process.communicate(text.encode())
    if process.returncode:
        raise EnvironmentProblem(
            f"{' '.join(command)} in {netns} failed: {complaint.decode(errors='replace').strip()}",
            "the node agent needs CAP_NET_ADMIN and the programs nft and nsenter",
        )
    return output.decode()
