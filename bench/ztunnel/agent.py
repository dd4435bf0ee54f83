"""`python -m bench.ztunnel.agent RUN_DIRECTORY`: what stands beside a ztunnel on its node, in a laptop cluster.

The pod runner announces sandboxes on `cni.sock` as it does to our own agent. A pod is answered for when ztunnel
listens in it, its traffic is redirected (the same NAT rules as Istio's, `ambit.node.capture`), and its redirection
annotation says so; the control plane publishes it as HBONE from then on.
"""

import asyncio
import sys
from pathlib import Path

from ambit.core.errors import AmbitError
from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from ambit.kube.client import Client
from ambit.kube.resource import PODS
from ambit.node.capture import apply as capture
from ambit.node.capture.ruleset import Capture
from ambit.node.cni.server import CniServer
from ambit.node.enrol.sandbox import Sandbox, checked
from bench.ztunnel.zds import LocalPod, ZdsServer


class Agent:
    """One node's, with its ztunnel's socket."""

    def __init__(self, client: Client, ztunnel: ZdsServer) -> None:
        self._client = client
        self._ztunnel = ztunnel

    async def add(self, sandbox: Sandbox) -> bool:
        """Captures the pod. Raises AmbitError."""
        pod = await self._client.get(PODS, sandbox.name, sandbox.namespace)
        if pod["metadata"]["uid"] != sandbox.uid:
            raise AmbitError(f"pod {sandbox.namespace}/{sandbox.name} is another one by now")
        await asyncio.to_thread(checked, sandbox)
        account = pod["spec"].get("serviceAccountName") or "default"
        await self._ztunnel.add(
            LocalPod(sandbox.uid, sandbox.name, sandbox.namespace, account, sandbox.netns)
        )
        await capture.redirect(sandbox.netns, Capture())
        change = {
            "metadata": {"uid": sandbox.uid, "annotations": {REDIRECTION_ANNOTATION: REDIRECTION_ENABLED}}
        }
        await self._client.patch(PODS, sandbox.name, change, sandbox.namespace, subresource="status")
        return True

    async def remove(self, sandbox: Sandbox) -> None:
        """Lets the pod go; its namespace is about to. Raises AmbitError."""
        await self._ztunnel.remove(sandbox.uid)

    async def left(self, sandbox: Sandbox) -> None:
        """ztunnel does not say what it has applied, so nobody waits for it."""


async def run(directory: Path) -> None:
    """Serves both sockets in the node's directory until cancelled."""
    ztunnel = ZdsServer(directory / "ztunnel.sock")
    async with Client.in_cluster() as client, asyncio.TaskGroup() as tasks:
        agent = Agent(client, ztunnel)
        tasks.create_task(ztunnel.run())
        tasks.create_task(CniServer(directory / "cni.sock", agent.add, agent.remove, agent.left).run())


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
