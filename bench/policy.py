"""How fast a policy is enforced: from the API server's answer to its writer until connections meet it.

A policy that denies is made and deleted again and again while clients connect all the time. What counts is when the
client knew: the end of the first connection that was decided anew, after which none was decided as before. Once more
with other policies in the same namespace, for pods with other labels.
"""

import asyncio
import json
import random
import time
from pathlib import Path

import msgspec

from ambit.kube.resource import AUTHORIZATION_POLICIES, CONFIG_MAPS
from bench.harness import Number, Options, percentile
from bench.instance import Instance, instance

INSIDE, OUTSIDE = "bench", "bench-outside"
PORT = 9000
KNOCKER = Path(__file__).with_name("knock.py")
QUIET = 1.05, 1.25
"""Seconds between two changes; one that takes longer than the least counts as that."""
EARLY = 0.1
"""Seconds by which a change may be seen before its writer has the answer."""
POLICY = {
    "metadata": {"name": "nobody", "namespace": INSIDE},
    "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"ports": [str(PORT)]}}]}]},
}
Changes = list[tuple[float, bool]]


async def measure(options: Options) -> list[Number]:
    """From the API server's answer until enforced, for each way to a pod."""
    times, others = (5, 100) if options.quick else (30, 1000)
    async with instance() as mesh:
        await _start(mesh)
        numbers = await _measure_ways(mesh, times)
        await _add_others(mesh, others)
        for each in await _measure_ways(mesh, times):
            numbers.append(msgspec.structs.replace(each, name=f"{each.name}, beside {others} policies"))
    return numbers


async def _add_others(mesh: Instance, count: int) -> None:
    """Makes policies for pods that are not there, and waits until the control plane has answered for each."""
    for number in range(count):
        rules = [{"to": [{"operation": {"ports": [str(20_000 + number)]}}]}]
        selector = {"matchLabels": {"app": f"other-{number % 50}"}}
        spec = {"action": "DENY", "selector": selector, "rules": rules}
        policy = {"metadata": {"name": f"other-{number}", "namespace": INSIDE}, "spec": spec}
        await mesh.client.create(AUTHORIZATION_POLICIES, policy)
    while True:
        found = await mesh.client.list(AUTHORIZATION_POLICIES, INSIDE)
        if all((each.get("status") or {}).get("conditions") for each in found):
            return
        await asyncio.sleep(1)


async def _measure_ways(mesh: Instance, times: int) -> list[Number]:
    """Each way to a pod, with so many policies made and deleted."""
    seconds = times * 2 * QUIET[1] + 2
    near, far = [await mesh.address(INSIDE, name) for name in ("near", "far")]

    async def client(namespace: str, name: str, verb: str, *hosts: str) -> dict[str, Changes]:
        words = ("python3", "/bench/knock.py", verb, str(seconds), str(PORT), *hosts)
        found = json.loads(await mesh.run(namespace, name, *words))
        return {host: [(moment, greeted) for moment, greeted in found[host]] for host in hosts}

    async with asyncio.TaskGroup() as group:
        inside = group.create_task(client(INSIDE, "client", "knock", near, far))
        outside = group.create_task(client(OUTSIDE, "client", "knock", far))
        held = group.create_task(client(INSIDE, "holder", "hold", near, far))
        written = group.create_task(_write(mesh, times))
    made = written.result()
    numbers: list[Number] = []
    for name, changes in (
        ("across nodes", inside.result()[far]),
        ("same node", inside.result()[near]),
        ("plain text from outside", outside.result()[far]),
    ):
        taken = enforced(made, changes)
        numbers += [
            Number(f"new connections, {name}, p99", percentile(taken, 0.99), "ms", 100.0),
            Number(f"new connections, {name}, median", percentile(taken, 0.5), "ms"),
        ]
    for name, host in (("across nodes", far), ("same node", near)):
        taken = enforced([each for each in made if not each[1]], held.result()[host])
        numbers.append(Number(f"open connection cut, {name}, p99", percentile(taken, 0.99), "ms", 1000.0))
    return numbers


def enforced(written: Changes, seen: Changes) -> list[float]:
    """Milliseconds from each change of policy, (when, allows?), until what was seen followed for good."""
    taken = []
    for moment, allows in written:
        latest = moment + QUIET[0]
        followed = [when for when, greeted in seen if greeted == allows and moment - EARLY < when < latest]
        taken.append(1000 * max(0.0, (max(followed) if followed else latest) - moment))
    return taken


async def _start(mesh: Instance) -> None:
    for namespace, enrolled in ((INSIDE, True), (OUTSIDE, False)):
        await mesh.namespace(namespace, enrolled=enrolled)
        script = {
            "metadata": {"name": "script", "namespace": namespace},
            "data": {"knock.py": KNOCKER.read_text()},
        }
        await mesh.client.create(CONFIG_MAPS, script)
    server = ["python3", "/bench/knock.py", "serve", str(PORT)]
    for name, node in (("near", "node1"), ("far", "node2")):
        await mesh.pod(INSIDE, name, node, {"server": server}, "script")
    for namespace, name in ((INSIDE, "client"), (INSIDE, "holder"), (OUTSIDE, "client")):
        await mesh.pod(namespace, name, "node1", {"client": ["sleep", "infinity"]}, "script")
        await mesh.address(namespace, name)


async def _write(mesh: Instance, times: int) -> Changes:
    """When each change was answered, and whether it allows. Times are of the clock that all processes share."""
    written: Changes = []
    await asyncio.sleep(1)
    for _ in range(times):
        await mesh.client.create(AUTHORIZATION_POLICIES, POLICY)
        written.append((time.monotonic(), False))
        await asyncio.sleep(random.uniform(*QUIET))
        await mesh.client.delete(AUTHORIZATION_POLICIES, "nobody", INSIDE)
        written.append((time.monotonic(), True))
        await asyncio.sleep(random.uniform(*QUIET))
    return written
