"""The node proxy is replaced under traffic: every request is served, and open connections stay where they are."""

import json
import time
from collections import Counter
from typing import Any

import pytest

from ambit.cli.mesh import in_charge
from ambit.testing.mesh import Mesh
from tests.mesh.traffic import attempts, start_traffic

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
SYSTEM = "ambit-system"


@pytest.mark.feature("F24")
def test_new_envoys_take_over_and_nobody_notices(mesh: Mesh, namespace: str) -> None:
    mesh.wait("no older Envoy carries what other tests began", lambda: not any(map(older, status_of(mesh))))
    start_traffic(mesh, namespace)
    begin = time.time()
    for node in mesh.nodes[:2]:
        former = envoy(mesh, node)
        mesh.ambit("node", "restart", node)
        assert envoy(mesh, node) not in (None, former)
        moment = time.time()
        mesh.wait("requests after it", lambda: _goes_on(mesh, namespace, moment))  # noqa: B023
    found = attempts(mesh, namespace, since=begin)
    assert [each for each in found if each.result != 200] == []
    refused = attempts(mesh, namespace, "denied", since=begin)
    assert refused
    assert [each for each in refused if each.result == 200] == []


def _goes_on(mesh: Mesh, namespace: str, moment: float) -> bool:
    kinds = Counter(each.kind for each in attempts(mesh, namespace, since=moment))
    return min(kinds["fresh"], kinds["kept"]) > 10


def status_of(mesh: Mesh) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mesh.dump("node", "status")
    return found


def older(status: dict[str, Any]) -> bool:
    """Whether a former Envoy of this node still runs."""
    return status["envoy"]["olderPid"] is not None


def envoy(mesh: Mesh, node: str) -> int | None:
    (status,) = (each for each in status_of(mesh) if each["node"] == node)
    pid: int | None = status["envoy"]["pid"]
    return pid


ADD_NOTHING = """
import os, sys
for file in ("/run/ambit/node/bootstrap.pb", f"/run/ambit/nodes/{sys.argv[1]}/bootstrap.pb"):
    if os.path.exists(file):
        with open(file, "ab") as bootstrap:
            bootstrap.write(bytes([10, 0]))
"""
"""Field 1 without content, which changes the file but not its meaning."""


@pytest.mark.feature("F24")
def test_an_upgrade_replaces_envoys_that_are_not_the_installed_ones_and_no_others(
    mesh: Mesh, namespace: str
) -> None:
    first, second = mesh.nodes[:2]
    mesh.wait("no older Envoy carries what other tests began", lambda: not any(map(older, status_of(mesh))))
    start_traffic(mesh, namespace)
    begin, former, other = time.time(), envoy(mesh, first), envoy(mesh, second)
    (agent,) = (
        each["metadata"]["name"]
        for each in in_charge(
            json.loads(mesh.kubectl("-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "-o", "json").stdout)[
                "items"
            ]
        )
        if each["spec"]["nodeName"] == first
    )
    mesh.exec(SYSTEM, agent, "python3", "-c", ADD_NOTHING, first)
    assert "outdated" in mesh.ambit("node", "status", first).stdout
    told = mesh.ambit("node", "upgrade", first, second).stdout.splitlines()
    now = envoy(mesh, first)
    assert now not in (None, former)
    assert envoy(mesh, second) == other
    assert told[0].startswith(f"A new Envoy serves {first}, pid {now}")
    assert told[1] == f"{second} runs the Envoy that is installed, pid {other}"
    assert "outdated" not in mesh.ambit("node", "status").stdout
    moment = time.time()
    mesh.wait("requests after it", lambda: _goes_on(mesh, namespace, moment))
    assert [each for each in attempts(mesh, namespace, since=begin) if each.result != 200] == []
