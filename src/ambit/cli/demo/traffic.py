"""Requests from the curl pod, and what came back."""

import re
from collections import Counter
from typing import Any

import msgspec

from ambit.core.errors import NotRunning
from ambit.kube.client import Client
from ambit.kube.conditions import has_condition
from ambit.kube.exec import ExecResult, run_in_pod
from ambit.kube.resource import PODS

TITLE = "<title>Simple Bookstore App</title>"


class Answers(msgspec.Struct, frozen=True):
    """HTTP status codes by how often they came; `000` stands for no answer at all."""

    codes: dict[str, int]
    seconds: tuple[float, ...]

    @property
    def total(self) -> int:
        return sum(self.codes.values())

    @property
    def served(self) -> int:
        return self.codes.get("200", 0)


async def pod_of(client: Client, namespace: str, app: str) -> dict[str, Any]:
    """A ready pod with the label `app`. Raises NotRunning."""
    for pod in await client.list(PODS, namespace, label_selector=f"app={app}"):
        if has_condition(pod, "Ready") and not pod["metadata"].get("deletionTimestamp"):
            return pod
    raise NotRunning(f"no ready pod with the label app={app} in namespace {namespace}")


async def curl(client: Client, namespace: str, *words: str) -> ExecResult:
    """One curl in the curl pod."""
    pod = await pod_of(client, namespace, "curl")
    return await run_in_pod(client, namespace, pod["metadata"]["name"], ["curl", "-s", "-m", "5", *words])


async def request(client: Client, namespace: str, url: str, count: int) -> Answers:
    """`count` requests one after the other, each over a new connection."""
    pod = await pod_of(client, namespace, "curl")
    one = f"curl -s -m 5 -o /dev/null -w '%{{http_code}} %{{time_total}}\\n' {url}"
    script = f"i=0; while [ $i -lt {count} ]; do {one}; i=$((i+1)); done"
    done = await run_in_pod(client, namespace, pod["metadata"]["name"], ["sh", "-c", script])
    lines = re.findall(r"(\d{3}) ([\d.]+)", done.stdout.decode())
    return Answers(dict(Counter(code for code, _ in lines)), tuple(float(seconds) for _, seconds in lines))
