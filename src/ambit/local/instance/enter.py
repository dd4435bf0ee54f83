"""Running a program inside an instance's namespaces, from the host: for debugging and captures."""

import os
import sys

from ambit.core.errors import BadInput
from ambit.local.instance.record import InstanceRecord
from ambit.local.layout import NETNS


def enter_command(record: InstanceRecord, place: str, words: list[str]) -> list[str]:
    """The command line that runs `words` in the network namespace of `place`: a node's name or `fabric`.

    Raises BadInput for a place that the instance does not have.
    """
    places = ["fabric", *(f"node{index}" for index in range(1, record.nodes + 1))]
    if place not in places:
        raise BadInput(f"no node {place!r}", f"there are: {', '.join(places)}")
    enter = ["nsenter", f"--target={record.supervisor.pid}", "--mount"]
    if record.rootless:
        enter += ["--user", "--preserve-credentials"]
        words = [sys.executable, "-m", "ambit.local.instance.groups", *words]
    return [*enter, "--", "nsenter", f"--net={os.fspath(NETNS / place)}", "--", *words]
