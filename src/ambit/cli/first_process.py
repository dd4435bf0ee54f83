"""Turns this process into the first process of an agent's container."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def become_keeper(part: str, options: Sequence[str]) -> NoReturn:
    """Runs the agent of this part again whenever it ends. A small program takes the place of this process."""
    from ambit.agent.supervise import keeper

    python = sys.executable
    agent = [python, "-m", "ambit", part, "run", *options]
    os.execv(python, [python, "-I", "-S", str(keeper.__file__), *agent])
