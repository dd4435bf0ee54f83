"""A tenant that writes random objects of every kind about another tenant's names costs that one nothing.

The objects of a run follow from its seed, which a failure names; the short form always has the same.
"""

import itertools
import json
import random
import time
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.abuse.random_objects import Names, objects
from tests.abuse.tenant import Attacker, Victim
from tests.soak import long

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl, pytest.mark.soak]

SECONDS = long(15.0, 300.0)
BATCH = 30
"""Objects of one kubectl."""
SLOWEST = 1.0
"""Seconds within which 99 of 100 requests of the victim end, on a machine that kubectl loads as well."""
ACKNOWLEDGED = 5.0
"""Seconds from the victim's policy to its acknowledgement; usually 0.2."""
POLICY: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "no-admin"},
    "spec": {
        "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
        "action": "DENY",
        "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}],
    },
}


def restarts(mesh: Mesh, *words: str) -> dict[str, int]:
    """How often the containers of pods have started again, by pod and container."""
    pods = json.loads(mesh.kubectl("get", "pods", "-o", "json", *words).stdout)["items"]
    return {
        f"{pod['metadata']['name']}/{each['name']}": each["restartCount"]
        for pod in pods
        for each in pod["status"].get("containerStatuses", ())
    }


def acknowledge(victim: Victim, path: str) -> float:
    """Seconds until a changed policy of the victim is acknowledged."""
    rules = [{"to": [{"operation": {"paths": ["/admin", path]}}]}]
    begun = time.monotonic()
    victim.apply(POLICY | {"spec": {**POLICY["spec"], "rules": rules}})
    words = ("--for=condition=ambit.io/Acknowledged", "authorizationpolicy/no-admin", "--timeout=110s")
    victim.mesh.kubectl("wait", "-n", victim.namespace, *words)
    victim.mesh.wait("the policy is in force", lambda: victim.get_status(path) == "403")
    return time.monotonic() - begun


def attack(attacker: Attacker, chance: random.Random, names: Names) -> tuple[int, int]:
    """Writes objects for a while; how many were sent and how many were taken."""
    made, sent, taken = objects(chance, names), 0, 0
    ended = time.monotonic() + SECONDS
    while time.monotonic() < ended:
        batch = list(itertools.islice(made, BATCH))
        words = ("apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-")
        done = attacker.kubectl(*words, stdin=yaml.safe_dump_all(batch))
        sent += len(batch)
        taken += len(done.stdout.splitlines())
        if chance.random() < 0.2:
            gone = chance.choice(batch)
            words = ("delete", "--ignore-not-found", "--wait=false", "-f", "-")
            attacker.kubectl(*words, stdin=yaml.safe_dump(gone))
    return sent, taken


@pytest.mark.timeout(long(300, 900))
def test_random_objects_of_a_tenant_cost_another_nothing(
    mesh: Mesh, victim: Victim, attacker: Attacker
) -> None:
    seed = long(1, random.SystemRandom().randrange(10**9))
    victim.bind_waypoint()
    victim.apply(POLICY)
    victim.mesh.wait("the policy is in force", lambda: victim.get_status("/admin") == "403")
    service = mesh.kubectl(
        "get", "service", "web", "-n", victim.namespace, "-o", "jsonpath={.spec.clusterIPs[*]}"
    )
    addresses = [*service.stdout.split(), *mesh.pod_addresses(victim.namespace, "web")]
    names = Names(attacker.namespace, victim.namespace, addresses)
    before = {**restarts(mesh, "-n", "ambit-system"), **restarts(mesh, "-n", victim.namespace)}
    with victim.measure() as report:
        sent, taken = attack(attacker, random.Random(seed), names)
        waited = acknowledge(victim, "/other")
    after = {**restarts(mesh, "-n", "ambit-system"), **restarts(mesh, "-n", victim.namespace)}
    logs = mesh.kubectl("logs", "-n", "ambit-system", "-l", "app=istiod", "--tail=-1").stdout
    found = {
        "seed": seed,
        "sent": sent,
        "taken": taken,
        "requests": len(report.seconds),
        "failures": report.failures,
        "p99": report.percentile(0.99),
        "acknowledged": waited,
    }
    assert taken > sent / 10, found
    assert report.failures == [], found
    assert victim.get_status("/admin") == "403", found
    assert after == before, found
    assert "Traceback" not in logs, (found, logs[logs.find("Traceback") :][:3000])
    assert waited < ACKNOWLEDGED, found
    assert report.percentile(0.99) < SLOWEST, found
