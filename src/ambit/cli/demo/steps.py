"""The demo's steps. Each measures one claim and returns what it saw; none takes anything for granted."""

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ambit.cli.demo.manifests import create_all, manifest
from ambit.cli.demo.traffic import TITLE, curl, pod_of, request
from ambit.cli.demo.wire import captured
from ambit.cli.mesh import CONTROL_PLANES, ask_all, node_of, node_pods, read_flows, system_pods
from ambit.core.errors import EnvironmentProblem
from ambit.core.names import (
    DATAPLANE_MODE_AMBIENT,
    DATAPLANE_MODE_LABEL,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
    SYSTEM_NAMESPACE,
)
from ambit.kube.client import Client
from ambit.kube.conditions import has_condition
from ambit.kube.resource import AUTHORIZATION_POLICIES, DEPLOYMENTS, NAMESPACES, PODS
from ambit.local.instance.record import InstanceRecord

NAMESPACE = "default"
PAGE = "http://productpage:9080/productpage"
RATINGS = "http://ratings:9080/ratings/0"
REQUESTS = 40
PODS_IN_ALL = 7
"""Bookinfo's six and the curl pod."""
PATIENCE = 60.0
LOOK_AGAIN = 0.1
POLICY_NAME = "ratings-refuses-curl"
POLICY: dict[str, Any] = {
    "metadata": {"name": POLICY_NAME, "namespace": NAMESPACE},
    "spec": {
        "selector": {"matchLabels": {"app": "ratings"}},
        "action": "DENY",
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/curl"]}}]}],
    },
}


class Outcome(msgspec.Struct, frozen=True):
    """What a step saw: did its claim hold, in one or more lines."""

    holds: bool
    lines: tuple[str, ...]


class Demo:
    """The state that steps share: the client, the instance, and from when on flows count."""

    def __init__(self, client: Client, record: InstanceRecord) -> None:
        self.client = client
        self.record = record
        self.enrolled_at = 0.0

    async def bookinfo(self) -> Outcome:
        """Istio's own manifests, until every pod is ready and the page has its title."""
        for name in ("bookinfo", "curl"):
            await create_all(self.client, NAMESPACE, manifest(name))
        pods = await _until("bookinfo is ready", self._ready_pods)
        page = await _until("productpage answers", self._page)
        nodes = sorted({node_of(pod) for pod in pods})
        return Outcome(
            TITLE in page, (f"{len(pods)} pods on {', '.join(nodes)}; productpage answers with its title",)
        )

    async def wire_in_the_clear(self) -> Outcome:
        """Before enrolment the marker must be found: it shows that the capture looks at the right place."""
        seen, packets = await self._marker_on_the_wire()
        return Outcome(
            seen, (f"marker {'found' if seen else 'NOT found'} in {packets} packets between the nodes",)
        )

    async def enrol(self) -> Outcome:
        """Label the namespace; no pod is restarted."""
        before = {pod["metadata"]["uid"] for pod in await self.client.list(PODS, NAMESPACE)}
        labels = {DATAPLANE_MODE_LABEL: DATAPLANE_MODE_AMBIENT}
        await self.client.patch(NAMESPACES, NAMESPACE, {"metadata": {"labels": labels}})
        pods = await _until("every pod is captured", self._captured_pods)
        await _until("node proxies tunnel to every pod", self._all_tunnel)
        self.enrolled_at = time.time()
        same = {pod["metadata"]["uid"] for pod in pods} == before
        return Outcome(same, (f"{len(pods)} running pods captured, {'none' if same else 'SOME'} restarted",))

    async def traffic(self) -> Outcome:
        """New connections through the whole of bookinfo."""
        answers = await request(self.client, NAMESPACE, PAGE, REQUESTS)
        median = statistics.median(answers.seconds) * 1000 if answers.seconds else 0.0
        text = f"{answers.served} of {answers.total} requests served, median {median:.1f} ms"
        return Outcome(answers.served == answers.total == REQUESTS, (text,))

    async def identities(self) -> Outcome:
        """Every connection of the traffic, as the destination's side reports it."""
        flows = await _until("the connections are reported", self._finished_flows)
        verified = [flow for flow in flows if flow.get("mutualTls")]
        tunnelled = [flow for flow in verified if flow.get("hop") == "tunnel"]
        handed = [flow for flow in verified if flow.get("hop") == "same-node"]
        share = 100 * len(verified) / len(flows)
        lines = [
            (
                f"{len(flows)} connections, {share:.1f} % with both identities verified:"
                f" {len(tunnelled)} mutual TLS between nodes, {len(handed)} handed over on one node"
            )
        ]
        if tunnelled:
            sample = tunnelled[-1]
            lines.append(f"{sample['source']['identity']} → {sample['destination']['identity']}")
        return Outcome(len(verified) == len(flows) and bool(tunnelled), tuple(lines))

    async def wire_encrypted(self) -> Outcome:
        """The same request, the same capture: now the marker must not be there."""
        seen, packets = await self._marker_on_the_wire()
        text = f"marker {'FOUND' if seen else 'not found'} in {packets} packets between the nodes"
        return Outcome(not seen and packets > 0, (text,))

    async def policy(self) -> Outcome:
        """A policy refuses curl at ratings, and the refusal names it; the page goes on."""
        before = await curl(self.client, NAMESPACE, "-o", "/dev/null", "-w", "%{http_code}", RATINGS)
        await self.client.create(AUTHORIZATION_POLICIES, POLICY)
        await _until("ratings refuses curl", self._ratings_refused)
        flow = await _until("the refusal is reported", self._denied_flow)
        page = await self._page()
        holds = before.stdout == b"200" and TITLE in page
        return Outcome(holds, (f"curl → ratings: denied by {flow['policy']}; productpage still served",))

    async def without_control_plane(self) -> Outcome:
        """Traffic, new connections included, while no control plane runs."""
        await self._scale_control(0)
        await _until("the control plane is gone", self._no_control)
        answers = await request(self.client, NAMESPACE, PAGE, REQUESTS)
        await self._scale_control(1)
        await _until("the control plane is back", self._control_ready)
        text = f"{answers.served} of {answers.total} requests served while no control plane ran"
        return Outcome(answers.served == answers.total == REQUESTS, (text,))

    async def _ready_pods(self) -> list[dict[str, Any]]:
        pods = await self.client.list(PODS, NAMESPACE)
        return pods if len(pods) >= PODS_IN_ALL and all(has_condition(pod, "Ready") for pod in pods) else []

    async def _page(self) -> str:
        return (await curl(self.client, NAMESPACE, PAGE)).stdout.decode(errors="replace")

    async def _captured_pods(self) -> list[dict[str, Any]]:
        pods = await self.client.list(PODS, NAMESPACE)
        annotations = [pod["metadata"].get("annotations", {}) for pod in pods]
        return (
            pods
            if all(each.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED for each in annotations)
            else []
        )

    async def _all_tunnel(self) -> bool:
        for _, dump in await ask_all(self.client, await node_pods(self.client), "/config_dump"):
            ours = [each for each in dump["workloads"] if f"//Pod/{NAMESPACE}/" in each["uid"]]
            if len(ours) < PODS_IN_ALL or any(workload.get("protocol") != "HBONE" for workload in ours):
                return False
        return True

    async def _marker_on_the_wire(self) -> tuple[bool, int]:
        """One request with a fresh marker, from the curl pod to a pod on another node."""
        source = await pod_of(self.client, NAMESPACE, "curl")
        others = [pod for pod in await self.client.list(PODS, NAMESPACE) if node_of(pod) != node_of(source)]
        if not others:
            raise EnvironmentProblem("every pod is on one node", "start with `--nodes 2`")
        marker = uuid.uuid4().hex
        address = others[0]["status"]["podIP"]
        async with captured(self.record, node_of(source)) as capture:
            await curl(self.client, NAMESPACE, "-H", f"x-marker: {marker}", f"http://{address}:9080/health")
        return capture.has(marker.encode()), capture.packets

    async def _finished_flows(self) -> list[dict[str, Any]]:
        flows = [
            flow
            for flow in await read_flows(self.client)
            if flow["reporter"] == "destination" and flow["time"] >= self.enrolled_at
        ]
        return flows if len(flows) >= 2 * REQUESTS else []

    async def _ratings_refused(self) -> bool:
        done = await curl(self.client, NAMESPACE, "-o", "/dev/null", RATINGS)
        return done.code != 0

    async def _denied_flow(self) -> dict[str, Any] | None:
        """As the server's side tells it: the caller's side does not know the policy."""
        for flow in await read_flows(self.client):
            if flow.get("decision") == "deny" and POLICY_NAME in str(flow.get("policy", "")):
                return flow
        return None

    async def _scale_control(self, replicas: int) -> None:
        await self.client.patch(
            DEPLOYMENTS, "ambit-control", {"spec": {"replicas": replicas}}, SYSTEM_NAMESPACE
        )

    async def _no_control(self) -> bool:
        return not await system_pods(self.client, CONTROL_PLANES)

    async def _control_ready(self) -> bool:
        pods = await system_pods(self.client, CONTROL_PLANES)
        return bool(pods) and all(has_condition(pod, "Ready") for pod in pods)


async def _until(what: str, condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait for something true and return it. Raises EnvironmentProblem."""
    deadline = time.monotonic() + PATIENCE
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise EnvironmentProblem(f"waited {PATIENCE:.0f} s in vain until {what}", "type `ambit check`")
        await asyncio.sleep(LOOK_AGAIN)
    return value
