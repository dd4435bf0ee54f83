"""Applying the newest state of something that changes often: changes are joined, failures tried again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ambit.core.errors import AmbitError

log = logging.getLogger(__name__)

SETTLE = 0.02
"""Seconds in which further changes join the first one: a rollout changes several objects at a time."""
RETRY_FIRST = 0.5
RETRY_MAX = 30.0
"""Seconds between attempts to apply what was refused, doubled each time."""


async def apply_changes(changed: asyncio.Event, apply: Callable[[], Awaitable[None]], what: str) -> None:
    """Call `apply` now and after each `changed`, until cancelled.

    When it raises AmbitError, OSError or ValueError this is logged as "`what`: reason", once for each reason, and
    it is called again after a while or at the next change, whichever is first.
    """
    delay, told = RETRY_FIRST, ""
    changed.set()
    while True:
        await changed.wait()
        await asyncio.sleep(SETTLE)
        changed.clear()
        try:
            await apply()
        except (AmbitError, OSError, ValueError) as problem:
            if str(problem) != told:
                told = str(problem)
                log.warning("%s: %s", what, problem)
            asyncio.get_running_loop().call_later(delay, changed.set)
            delay = min(RETRY_MAX, delay * 2)
        else:
            delay, told = RETRY_FIRST, ""
