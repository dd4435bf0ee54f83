"""Putting capture into a pod's namespace, reading it back, and taking it away.

For a new pod: `block`, then the proxy's listeners, then `redirect`. For a running pod: listeners, then
`redirect`. A running pod that leaves: `release`, and `remove` when its connections have ended. Each step
replaces the whole table at once, so there is never a moment without rules. All may be repeated.
"""

import asyncio

from ambit.core.errors import EnvironmentProblem
from ambit.node.capture import ruleset
from ambit.node.netns import routes


async def block(netns: str) -> None:
    """Nothing enters or leaves the pod. Raises EnvironmentProblem."""
    await _nft(netns, ruleset.replacing(ruleset.block()))


async def redirect(netns: str, capture: ruleset.Capture) -> None:
    """The pod's traffic goes through the proxy. Raises EnvironmentProblem, and then traffic is as before."""
    await asyncio.to_thread(routes.ensure, netns)
    await _nft(netns, ruleset.replacing(ruleset.redirect(capture)))


async def release(netns: str) -> None:
    """Nothing new of the pod goes through the proxy; what is open goes on. Raises EnvironmentProblem."""
    await _nft(netns, ruleset.replacing(ruleset.release()))


async def remove(netns: str) -> None:
    """The pod's traffic is its own again. Raises EnvironmentProblem."""
    await _nft(netns, ruleset.removing())
    await asyncio.to_thread(routes.remove, netns)


async def is_redirected(netns: str, capture: ruleset.Capture) -> bool:
    """Whether the namespace holds exactly the rules that `redirect` writes."""
    return await _listing(netns) == ruleset.redirect(capture)


async def is_blocked(netns: str) -> bool:
    """Whether the namespace holds exactly the rules that `block` writes."""
    return await _listing(netns) == ruleset.block()


async def _listing(netns: str) -> str:
    """Our table as nft prints it, empty when there is none."""
    try:
        return await _run(netns, "", "nft", "-s", "list", "table", "inet", ruleset.TABLE)
    except EnvironmentProblem as problem:
        if "No such file or directory" in problem.message and "table inet" in problem.message:
            return ""
        raise


async def _nft(netns: str, script: str) -> None:
    await _run(netns, script, "nft", "-f", "-")


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
