"""The cluster as loads see it: pods that run this machine's own programs, and what the parts of a mesh use."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
from tests.kubernetes.cluster import lifecycle
from tests.kubernetes.cluster.settings import PAUSE_IMAGE, Cluster

from ambit.agent.binary import envoy_binary
from bench.datapath.tools import sink
from bench.instance import until
from bench.servers import http_server

LOADER = Path(__file__).parents[1] / "load.py"
ENVOY = "/envoy"
MACHINE = ("/usr", "/lib", "/lib64", "/bin")
"""Folders of this machine that pods see: wrk, iperf3 and Python are not in any image."""
NEAR, FAR = "server-near", "server-far"
CLIENT = "client"
PROXIES = ("envoy", "ztunnel")
ENROLLED = "istio.io/dataplane-mode=ambient"


class Use(msgspec.Struct, frozen=True):
    """A pod of a mesh: the name of what made it, its processes, those that carry the data path apart from the
    others; proportional and anonymous memory in KiB, and the anonymous part of the former."""

    name: str
    proxies: tuple[int, ...]
    others: tuple[int, ...]
    pss: int
    anonymous: int
    proxies_anonymous: int


class Site(msgspec.Struct, frozen=True):
    """`known`: whether wrk and iperf3 are there."""

    cluster: Cluster
    known: bool

    async def run(self, namespace: str, pod: str, *words: str) -> str:
        """What a program in a pod printed. Raises RuntimeError when it failed."""
        return await self.kubectl("-n", namespace, "exec", pod, "-c", "main", "--", *words)

    async def kubectl(self, *words: str, stdin: str = "") -> str:
        """What kubectl printed. Raises RuntimeError when it failed."""
        process = await asyncio.create_subprocess_exec(
            *(*self.cluster.inside(), "kubectl", *words),
            env=lifecycle.environment(self.cluster),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(stdin.encode())
        if process.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {process.returncode}\n{errors.decode()}")
        return output.decode()

    async def pods(self, namespace: str, *, enrolled: bool) -> dict[str, str]:
        """A client and a server on the first node, a server on the second; the servers' addresses by name."""
        await self.kubectl("create", "namespace", namespace)
        if enrolled:
            await self.kubectl("label", "namespace", namespace, ENROLLED)
        near, far = (node.name for node in self.cluster.nodes[:2])
        servers = {"main": http_server(), "bulk": sink(self.known)}
        script = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "script", "namespace": namespace},
            "data": {"load.py": LOADER.read_text()},
        }
        objects = [
            script,
            _pod(namespace, CLIENT, near, {"main": ["sleep", "infinity"]}),
            _pod(namespace, NEAR, near, servers),
            _pod(namespace, FAR, far, servers),
        ]
        for each in objects:
            await self.kubectl("apply", "-f", "-", stdin=json.dumps(each))
        await self.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s")
        path = "jsonpath={.status.podIP}"
        return {
            name: await self.kubectl("-n", namespace, "get", "pod", name, "-o", path) for name in (NEAR, FAR)
        }

    async def warm(self, namespace: str, address: str, port: int) -> None:
        """Until the server answers the namespace's client."""

        async def answers() -> bool:
            try:
                words = ("python3", "/bench/load.py", "first", f"{address}:{port}")
                return bool(await self.run(namespace, CLIENT, *words))
            except RuntimeError:
                return False

        await until(f"{address}:{port} answers in {namespace}", answers)

    async def parts(self, namespace: str) -> list[Use]:
        """The running pods of a namespace, with their processes as this machine sees them."""
        listed = json.loads(await self.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
        return [use_of(each) for each in listed if each["status"].get("phase") == "Running"]


def use_of(pod: dict[str, Any]) -> Use:
    """What a pod of a mesh uses now."""
    metadata = pod["metadata"]
    pids = pids_of(metadata["uid"])
    sizes = {pid: _memory(pid) for pid in pids}
    proxies = tuple(pid for pid in pids if _program(pid) in PROXIES)
    digest = metadata.get("labels", {}).get("pod-template-hash", "")
    return Use(
        metadata.get("generateName", metadata["name"]).rstrip("-").removesuffix(f"-{digest}"),
        proxies,
        tuple(pid for pid in pids if pid not in proxies),
        sum(pss for pss, _ in sizes.values()),
        sum(anonymous for _, anonymous in sizes.values()),
        sum(sizes[pid][1] for pid in proxies),
    )


def pids_of(uid: str) -> list[int]:
    """The processes of a pod: those whose cgroup carries its uid, the sandbox's own one left out."""
    wanted = (uid, uid.replace("-", "_"))
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(path.parent.name)
        if any(each in text for each in wanted) and _program(pid) != "pause":
            found.append(pid)
    return sorted(found)


def _program(pid: int) -> str:
    """The name of the program that a process runs; empty for one that has ended."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")).name
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _memory(pid: int) -> tuple[int, int]:
    """Proportional and anonymous KiB; nothing for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    return sizes["Pss"], sizes["Anonymous"]


def _pod(namespace: str, name: str, node: str, containers: dict[str, list[str]]) -> dict[str, Any]:
    folder = envoy_binary().parent
    mounts = [
        *({"name": path.strip("/"), "mountPath": path, "readOnly": True} for path in MACHINE),
        {"name": "envoy", "mountPath": ENVOY, "readOnly": True},
        {"name": "script", "mountPath": "/bench"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes = [
        *({"name": path.strip("/"), "hostPath": {"path": path}} for path in MACHINE),
        {"name": "envoy", "hostPath": {"path": str(folder)}},
        {"name": "script", "configMap": {"name": "script"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": each,
                    "image": PAUSE_IMAGE,
                    "imagePullPolicy": "Never",
                    "command": [words[0].replace(str(folder), ENVOY), *words[1:]],
                    "volumeMounts": mounts,
                }
                for each, words in containers.items()
            ],
            "volumes": volumes,
        },
    }
