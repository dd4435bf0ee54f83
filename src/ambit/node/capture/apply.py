"""Putting capture into a pod's namespace, reading it back, and taking it away.

For a new pod: `block`, then the proxy's listeners, then `redirect`. For a running pod: listeners, then
`redirect`. A running pod that leaves: `release`, and `remove` when its connections have ended. Each step
replaces the whole table at once, so there is never a moment without rules. All may be repeated.
"""

import asyncio

from ambit.node.capture import ruleset
from ambit.node.netns import nft, routes, steering, timestamps


async def block(netns: str) -> None:
    """Nothing enters or leaves the pod. Raises EnvironmentProblem."""
    await nft.load(netns, ruleset.replacing(ruleset.block()))


async def redirect(netns: str, capture: ruleset.Capture) -> None:
    """The pod's traffic goes through the proxy. Raises EnvironmentProblem, and then traffic is as before."""
    if capture.transparent:
        await asyncio.to_thread(steering.ensure, netns, capture.addresses)
    else:
        await asyncio.to_thread(routes.ensure, netns)
        await asyncio.to_thread(timestamps.without_offsets, netns)
    await nft.load(netns, ruleset.replacing(ruleset.redirect(capture)))
    await asyncio.to_thread(steering.unshift_ports, netns)


async def release(netns: str, capture: ruleset.Capture) -> None:
    """Nothing new of the pod goes through the proxy; what is open goes on. Raises EnvironmentProblem."""
    inherited = capture.transparent and await asyncio.to_thread(steering.inherit_marks, netns)
    # A client's kernel and the proxy that delivers for it take the same ports in the same order.
    await asyncio.to_thread(steering.shift_ports, netns)
    await nft.load(netns, ruleset.replacing(ruleset.release(capture, inherited=inherited)))


async def remove(netns: str, capture: ruleset.Capture) -> None:
    """The pod's traffic is its own again. Raises EnvironmentProblem."""
    if capture.transparent:
        # First: until the rules are gone, they let everything go its way.
        await asyncio.to_thread(steering.remove, netns)
    await nft.load(netns, ruleset.removing())
    await asyncio.to_thread(steering.unshift_ports, netns)
    if not capture.transparent:
        await asyncio.to_thread(routes.remove, netns)
        await asyncio.to_thread(timestamps.with_offsets, netns)


async def is_redirected(netns: str, capture: ruleset.Capture) -> bool:
    """Whether the namespace holds exactly the rules that `redirect` writes. Raises EnvironmentProblem."""
    if capture.transparent and not await asyncio.to_thread(steering.is_in_place, netns):
        return False
    return await nft.listing(netns, ruleset.TABLE) == ruleset.redirect(capture)
