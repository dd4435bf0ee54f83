"""Scenarios with the real API server, the real network of one node, and the pod runner."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists, NotFound
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.fabric.network import NetnsFabric
from ambit.local.layout import NodeAddresses, StateDirectory
from ambit.local.pods.runner import PodRunner
from ambit.local.pods.sandbox import read_owner
from ambit.local.streams import LogOptions
from tests.local.pods.inside import command, eventually

API_SOCKET = Path("/run/ambit/api.sock")
NODE = NodeAddresses(1)


class Cluster:
    """A running API server and network; `runner` is started and stopped by scenarios."""

    def __init__(self, client: Client, fabric: NetnsFabric, state: StateDirectory) -> None:
        self.client = client
        self.fabric = fabric
        self.state = state

    @asynccontextmanager
    async def runner(self) -> AsyncIterator[PodRunner]:
        runner = PodRunner(self.client, self.fabric, self.state, (NODE,))
        task = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def create(self, name: str, container: dict[str, Any], **spec: Any) -> None:
        labels = {"app": name}
        pod = {"metadata": {"name": name, "namespace": "default", "labels": labels}}
        main = {"name": "main", "image": "busybox", **container}
        settings = {"nodeName": NODE.name, "terminationGracePeriodSeconds": 1}
        if "volumes" not in spec:
            settings["automountServiceAccountToken"] = False
        await self.client.create(kinds.PODS, {**pod, "spec": {**settings, **spec, "containers": [main]}})

    async def pod(self, name: str) -> dict[str, Any]:
        return await self.client.get(kinds.PODS, name, "default")

    async def until(self, name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The pod once it satisfies `condition`."""
        pod: dict[str, Any] = {}
        try:
            async with asyncio.timeout(60):
                while True:
                    pod = await self.pod(name)
                    if condition(pod):
                        return pod
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{json.dumps(pod.get('status'))} {await self.events(name)}") from None

    async def ready(self, name: str) -> dict[str, Any]:
        return await self.until(name, is_ready)

    async def delete(self, name: str) -> None:
        await self.client.delete(kinds.PODS, name, "default")
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.pod(name)
                except NotFound:
                    return
                await asyncio.sleep(0.02)

    async def reports(self, name: str, reason: str) -> None:
        """Returns once there is such an event; the runner writes them behind what it does."""

        async def is_there() -> bool:
            return reason in {found for found, _ in await self.events(name)}

        await eventually(is_there)

    async def events(self, name: str) -> list[tuple[str, str]]:
        found = await self.client.list(kinds.EVENTS, "default")
        return [(item["reason"], item["message"]) for item in found if item["involvedObject"]["name"] == name]


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def main_status(pod: dict[str, Any]) -> dict[str, Any]:
    return dict(((pod.get("status") or {}).get("containerStatuses") or [{}])[0])


def waits(pod: dict[str, Any]) -> str:
    """Why the main container waits; empty when it does not."""
    return str(main_status(pod).get("state", {}).get("waiting", {}).get("reason", ""))


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[Cluster]:
    state = StateDirectory(directory / "state" / "test")
    fabric = NetnsFabric((NODE,))
    fabric.join()
    command("ip", "link", "set", "lo", "up")
    await fabric.prepare()
    server = ApiServer(ApiSettings(state.pki, None, ()), None)
    await server.start([], API_SOCKET)
    async with Client.over_unix(API_SOCKET) as client:
        with suppress(AlreadyExists):
            await client.create(
                kinds.SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}}
            )
        yield Cluster(client, fabric, state)
    await server.stop()


async def life(directory: Path) -> None:
    """From creation to removal: init container, environment, probe, logs, exec, connection, status, events."""
    async with cluster(directory) as it, it.runner() as runner:
        work = {"name": "work", "mountPath": "/work"}
        script = 'cat /work/from-init; echo "$POD_IP $GREETING"; cd /work; exec python3 -m http.server 8080'
        await it.create(
            "web",
            {
                "command": ["sh", "-c", script],
                "env": [
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "GREETING", "value": "hello $(POD_IP)"},
                ],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
                "volumeMounts": [work],
            },
            volumes=[{"name": "work", "emptyDir": {}}],
            automountServiceAccountToken=False,
            initContainers=[
                {
                    "name": "init",
                    "image": "busybox",
                    "command": ["sh", "-c", "echo first > /work/from-init"],
                    "volumeMounts": [work],
                }
            ],
        )
        pod = await it.ready("web")
        status = pod["status"]
        assert status["phase"] == "Running"
        assert status["podIP"].startswith("10.244.1.")
        assert [item["ip"] for item in status["hostIPs"]] == [str(NODE.v4), str(NODE.v6)]
        assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
        assert main_status(pod)["restartCount"] == 0

        lines = [line async for line in runner.streams.read_log("default", "web", "main", LogOptions())]
        assert lines[0] == b"first\n"
        assert lines[1] == f"{status['podIP']} hello {status['podIP']}\n".encode()
        assert any(b"169.254.7.127" in line for line in lines), "the probe's source address"

        session = await runner.streams.exec("default", "web", "main", ["cat"], stdin=True, tty=False)
        await session.write_stdin(b"through")
        await session.close_stdin()
        assert await session.read_stdout() == b"through"
        assert await session.wait() == 0

        reader, writer = await runner.streams.dial("default", "web", 8080)
        writer.write(b"GET /from-init HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"first\n")
        writer.close()

        for reason in ("Pulled", "Created", "Started"):
            await it.reports("web", reason)
        await it.delete("web")
        assert await it.fabric.attached() == ()
        assert not list(Path("/run/ambit/sandboxes").iterdir())
        await it.reports("web", "Killing")


async def enrolment(directory: Path) -> None:
    """An enrolled pod waits for the agent's yes; before its containers are told of their end nobody is sent to it any
    more; the agent lets go before the network does."""
    heard: list[tuple[str, bool]] = []
    told: list[str] = []
    answers = [{"ok": False, "error": "not yet"}, {"ok": True, "enrolled": True}, {"ok": True}, {"ok": True}]

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        heard.append((request["command"], Path(request["netns"]).exists()))
        if request["command"] == "leave":
            told.extend(reason for reason, _ in await it.events("web"))
        writer.write(json.dumps(answers.pop(0)).encode() + b"\n")
        writer.close()

    async with cluster(directory) as it, it.runner():
        labels = {"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}}
        await it.client.patch(kinds.NAMESPACES, "default", labels)
        await it.create("web", {"command": ["sleep", "1000"]})
        await it.reports("web", "FailedCreatePodSandBox")
        assert main_status(await it.pod("web"))["state"] == {"waiting": {"reason": "ContainerCreating"}}
        server = await asyncio.start_unix_server(agent, str(NODE.run / "cni.sock"))
        await it.ready("web")
        assert heard == [("add", True), ("add", True)]
        assert ("FailedCreatePodSandBox", "the node agent refused: not yet") in await it.events("web")
        await it.delete("web")
        assert heard[2:] == [("leave", True), ("del", True)]
        assert "Killing" not in told
        await it.reports("web", "Killing")
        server.close()


async def failures(directory: Path) -> None:
    """A crash loop backs off; an unknown image says what to type, and starts once it is mapped; liveness restarts."""
    async with cluster(directory) as it, it.runner() as runner:
        await it.create("crash", {"command": ["sh", "-c", "echo boom; exit 3"]})
        pod = await it.until(
            "crash",
            lambda pod: (
                main_status(pod).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
            ),
        )
        assert main_status(pod)["restartCount"] == 1
        assert main_status(pod)["lastState"]["terminated"]["exitCode"] == 3
        options = LogOptions(previous=True)
        assert [line async for line in runner.streams.read_log("default", "crash", "main", options)] == [
            b"boom\n"
        ]

        await it.create("unknown", {"image": "ghcr.io/acme/thing:1.2", "args": ["1000"]})
        pod = await it.until("unknown", lambda pod: "waiting" in main_status(pod).get("state", {}))
        waiting = main_status(pod)["state"]["waiting"]
        assert waiting["reason"] == "ErrImagePull"
        assert "ambit local image add 'ghcr.io/acme/thing' -- COMMAND" in waiting["message"]
        await it.client.create(kinds.NAMESPACES, {"metadata": {"name": "ambit-system"}})
        entry = "- {pattern: '*/acme/*', command: [sleep]}"
        image_map = {
            "metadata": {"name": "image-map", "namespace": "ambit-system"},
            "data": {"images.yaml": entry},
        }
        await it.client.create(kinds.CONFIG_MAPS, image_map)
        await it.ready("unknown")

        probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
        await it.create("sick", {"command": ["sleep", "1000"], "livenessProbe": probe})
        await it.until("sick", lambda pod: main_status(pod).get("restartCount", 0) >= 1)
        await it.reports("sick", "Unhealthy")

        await it.create("done", {"command": ["true"]}, restartPolicy="Never")
        pod = await it.until("done", lambda pod: (pod.get("status") or {}).get("phase") == "Succeeded")
        assert main_status(pod)["state"]["terminated"]["reason"] == "Completed"
        for name in ("crash", "unknown", "sick", "done"):
            await it.delete(name)


async def adoption(directory: Path) -> None:
    """A new runner takes over what runs; volumes follow their ConfigMap; tokens are bound to the pod."""
    async with cluster(directory) as it:
        config = {"metadata": {"name": "config", "namespace": "default"}, "data": {"key": "old"}}
        await it.client.create(kinds.CONFIG_MAPS, config)
        sources = [{"serviceAccountToken": {"path": "token", "audience": "istio-ca"}}]
        async with it.runner():
            await it.create(
                "web",
                {
                    "command": ["sleep", "1000"],
                    "volumeMounts": [
                        {"name": "config", "mountPath": "/etc/config"},
                        {"name": "token", "mountPath": "/var/run/secrets/tokens"},
                    ],
                },
                volumes=[
                    {"name": "config", "configMap": {"name": "config"}},
                    {"name": "token", "projected": {"sources": sources}},
                ],
                automountServiceAccountToken=False,
            )
            before = await it.ready("web")
        async with it.runner() as runner:
            await eventually(lambda: _holds(runner, "/etc/config/key", b"old"))
            after = await it.pod("web")
            assert main_status(after)["containerID"] == main_status(before)["containerID"]
            assert after["status"]["podIPs"] == before["status"]["podIPs"]
            await it.client.patch(kinds.CONFIG_MAPS, "config", {"data": {"key": "new"}}, "default")
            await eventually(lambda: _holds(runner, "/etc/config/key", b"new"))
            token = (await _read(runner, "/var/run/secrets/tokens/token")).decode()
            review = {"spec": {"token": token, "audiences": ["istio-ca"]}}
            status = (await it.client.create(kinds.TOKEN_REVIEWS, review))["status"]
            assert status["authenticated"]
            assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
            await it.delete("web")


async def interrupted(directory: Path) -> None:
    """A runner that ends while a pod is ending, or was deleted by force: the next one finishes the work."""
    async with cluster(directory) as it:
        script = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done"
        async with it.runner():
            await it.create("slow", {"command": ["sh", "-c", script]}, terminationGracePeriodSeconds=30)
            await it.create("gone", {"command": ["sleep", "1000"]})
            await it.ready("slow")
            await it.ready("gone")
            await it.client.delete(kinds.PODS, "slow", "default")
            await it.reports("slow", "Killing")
        await it.client.delete(kinds.PODS, "gone", "default", grace_period=0)
        assert len(list(Path("/run/ambit/sandboxes").iterdir())) == 2
        async with it.runner():
            await it.delete("slow")

            async def is_clean() -> bool:
                return not list(Path("/run/ambit/sandboxes").iterdir()) and await it.fabric.attached() == ()

            await eventually(is_clean)


async def private_paths(directory: Path) -> None:
    """The instance's files are no volume, not even for who asks by their path."""
    async with cluster(directory) as it, it.runner():
        for number, path in enumerate(["/", "/run/ambit", str(it.state.pki), str(directory / "link")]):
            if path.endswith("link"):
                Path(path).symlink_to(it.state.pki)
            await it.create(
                f"nosy-{number}",
                {"command": ["sleep", "1000"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                automountServiceAccountToken=False,
                volumes=[{"name": "v", "hostPath": {"path": path}}],
            )
            pod = await it.until(f"nosy-{number}", lambda pod: waits(pod) == "CreateContainerConfigError")
            assert "private files" in main_status(pod)["state"]["waiting"]["message"]
            await it.delete(f"nosy-{number}")


async def lost_sandbox(directory: Path) -> None:
    """A pod whose first process was killed starts anew in the same network; its volumes are still there."""
    async with cluster(directory) as it, it.runner():
        await it.create("web", {"command": ["sleep", "1000"]})
        before = await it.ready("web")
        owner = read_owner(next(Path("/run/ambit/sandboxes").iterdir()))
        assert owner is not None
        os.kill(owner.pid, signal.SIGKILL)
        after = await it.until("web", lambda pod: is_ready(pod) and main_status(pod)["restartCount"] == 1)
        assert after["status"]["podIPs"] == before["status"]["podIPs"]
        assert main_status(after)["lastState"]["terminated"]["exitCode"] == 137
        await it.reports("web", "SandboxChanged")
        await it.delete("web")


async def termination(directory: Path) -> None:
    """preStop first, then SIGTERM, SIGKILL at the end of the grace; a sidecar outlives the containers it serves."""
    log = "/work/log"
    stubborn = f'trap "echo term >> {log}" TERM; while :; do sleep 0.05; done'
    sidecar = f'trap "echo sidecar >> {log}; exit 0" TERM; while :; do sleep 0.05; done'
    work = {"name": "work", "mountPath": "/work"}
    async with cluster(directory) as it, it.runner():
        out = directory / "out"
        await it.create(
            "web",
            {
                "command": ["sh", "-c", stubborn],
                "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", f"echo hook >> {log}"]}}},
                "volumeMounts": [work],
            },
            terminationGracePeriodSeconds=10,
            automountServiceAccountToken=False,
            initContainers=[
                {
                    "name": "side",
                    "image": "busybox",
                    "restartPolicy": "Always",
                    "command": ["sh", "-c", sidecar],
                    "volumeMounts": [work],
                }
            ],
            volumes=[{"name": "work", "hostPath": {"path": str(out), "type": "DirectoryOrCreate"}}],
        )
        await it.ready("web")
        began = asyncio.get_running_loop().time()
        await it.delete("web")
        assert asyncio.get_running_loop().time() - began >= 9.8
        said = (out / "log").read_text().split()
        assert said == ["hook", "term", "sidecar"], (said, await it.events("web"))


async def _holds(runner: PodRunner, path: str, data: bytes) -> bool:
    return await _read(runner, path) == data


async def _read(runner: PodRunner, path: str) -> bytes:
    try:
        session = await runner.streams.exec("default", "web", "main", ["cat", path], stdin=False, tty=False)
    except LookupError:
        return b""
    data = await session.read_stdout()
    await session.wait()
    return data
