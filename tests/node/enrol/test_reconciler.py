"""What the agent knows of the node's pods by watching them."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ambit.kube.client import Client
from ambit.node.enrol.enroller import Enroller
from ambit.node.enrol.reconciler import Reconciler
from tests.node.world import Api, until


async def test_a_pod_is_ending_while_it_is_there_and_deleted(tmp_path: Path) -> None:
    api = Api()
    reconciler = Reconciler(
        cast(Client, api),
        "here",
        cast(Enroller, SimpleNamespace(sandboxes={})),
        sandboxes=tmp_path,
        namespaces=tmp_path,
    )
    running = asyncio.ensure_future(reconciler.run())
    key = ("ambit-system", "agent")
    pod: dict[str, Any] = {
        "metadata": {"namespace": key[0], "name": key[1], "uid": "u"},
        "spec": {"nodeName": "here"},
    }
    await until(lambda: reconciler.is_synced)
    assert not reconciler.is_ending(key)
    api.put("pods", pod)
    api.put("pods", {**pod, "metadata": {**pod["metadata"], "name": "known"}})
    api.put("pods", {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    await until(lambda: reconciler.is_ending(key))
    assert not reconciler.is_ending((key[0], "known"))
    # Deleted by force: it is gone before its containers are.
    api.delete("pods", *key)
    await until(lambda: not reconciler.is_ending(key))
    running.cancel()
