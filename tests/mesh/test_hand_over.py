"""The node proxy is replaced under traffic: every request is served, and open connections stay where they are."""

import time
from collections import Counter

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.traffic import attempts, start_traffic

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]


@pytest.mark.feature("F24")
def test_new_envoys_take_over_and_nobody_notices(mesh: Mesh, namespace: str) -> None:
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


def envoy(mesh: Mesh, node: str) -> int | None:
    (status,) = (each for each in mesh.dump("node", "status") if each["node"] == node)
    pid: int | None = status["envoy"]["pid"]
    return pid
