"""Containers that end before the answer to their start is read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ambit.local.layout import StateDirectory
from ambit.local.pods.containers import Containers
from ambit.local.pods.status import Slot

POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default", "uid": "u"},
    "spec": {"containers": [{"name": "c", "image": "x", "command": ["true"]}]},
}


class Quick(Containers):
    """Without volumes and environment."""

    async def prepare(self, *_: Any) -> Any:
        return {"argv": ["true"]}, []


class Shim:
    """Tells of start and end, as the real one does on its watch, before it answers the request."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self.containers: Containers | None = None
        self.slot: Slot | None = None

    async def start(self, request: dict[str, Any]) -> int:
        assert self.containers is not None
        assert self.slot is not None
        running: Any = {
            "name": "c",
            "attempt": request["attempt"],
            "pid": 7,
            "started": 1.0,
            "finished": None,
            "exit_code": None,
            "signal": None,
        }
        self.containers.update(self.slot, running, POD)
        self.containers.update(self.slot, running | {"finished": 1.1, "exit_code": self.exit_code}, POD)
        return 7


@pytest.mark.parametrize(("restart", "exit_code", "starts_again"), [("Never", 0, False), ("Always", 1, True)])
async def test_news_that_overtakes_the_answer_stays(
    tmp_path: Path, restart: Any, exit_code: int, starts_again: bool
) -> None:
    host = SimpleNamespace(
        images=tuple,
        state=StateDirectory(tmp_path),
        events=SimpleNamespace(record=lambda *_: None),
    )
    shim, anything = Shim(exit_code), cast("Any", None)
    containers = Quick(cast("Any", host), cast("Any", shim), anything, anything, lambda: None)
    slot = Slot("c", "x", "main", restart)
    shim.containers, shim.slot = containers, slot
    assert not await containers.start(POD, slot, [])
    assert slot.ended
    assert slot.succeeded == (exit_code == 0)
    assert (slot.due > 0) == starts_again
    assert (slot.backoff > 0) == starts_again
