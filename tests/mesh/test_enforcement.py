"""Policy in force: each kind once, near (same node) and far, and what becomes of connections that are open."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.talk import PORTS, SERVER, Calls, Talk

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

ASK = """
import json, socket, sys
def greeted(address, port):
    try:
        with socket.create_connection((address, port), 30) as dialled:
            return dialled.recv(5) == b"hello"
    except OSError:
        return False
print(json.dumps([greeted(*each) for each in json.load(sys.stdin)]))
"""


class Town(NamedTuple):
    """Namespaces with one server and clients `near` (on its node) and `far` (on another) in each."""

    inside: str
    other: str
    outside: str
    server: tuple[str, ...]
    far: tuple[str, ...]


@pytest.fixture(scope="module")
def town(mesh: Mesh) -> Iterator[Town]:
    with (
        make_namespace(mesh) as inside,
        make_namespace(mesh) as other,
        make_namespace(mesh, enrolled=False) as outside,
    ):
        probe = {"tcpSocket": {"port": 9001}, "periodSeconds": 1}
        mesh.apply(
            pod(
                "server",
                mesh.nodes[0],
                ["python3", "-uc", SERVER],
                namespace=inside,
                labels={"app": "server"},
                readinessProbe=probe,
            )
        )
        for namespace in (inside, other, outside):
            for name, node in zip(("near", "far"), mesh.nodes, strict=False):
                mesh.apply(pod(name, node, ["sleep", "3600"], namespace=namespace))
        for namespace in (inside, other, outside):
            mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        server, far = (mesh.pod_addresses(inside, name) for name in ("server", "far"))
        yield Town(inside, other, outside, server, far)


def answers(mesh: Mesh, town: Town) -> list[set[str]]:
    """By port: which clients the server greets, `<namespace> <name>`; one family alone is told as such."""
    questions = json.dumps([[address, port] for port in PORTS for address in town.server])

    def ask(client: tuple[str, str]) -> list[set[str]]:
        word, name = client
        words = ("exec", "-i", "-n", namespaces[word], name, "--", "python3", "-c", ASK)
        greeted = json.loads(mesh.kubectl(*words, stdin=questions).stdout)
        families = len(town.server)
        by_port = [greeted[index * families : (index + 1) * families] for index in range(len(PORTS))]
        spoken = {0: set(), families: {f"{word} {name}"}}
        return [spoken.get(sum(each), {f"{word} {name} by one family"}) for each in by_port]

    namespaces = {"inside": town.inside, "other": town.other, "outside": town.outside}
    clients = [(word, name) for word in namespaces for name in ("near", "far")]
    with ThreadPoolExecutor() as several:
        by_client = list(several.map(ask, clients))
    return [set[str]().union(*(each[index] for each in by_client)) for index in range(len(PORTS))]


INSIDE, OTHER, OUTSIDE = ({f"{word} near", f"{word} far"} for word in ("inside", "other", "outside"))
ALL = INSIDE | OTHER | OUTSIDE
SELECTOR = {"matchLabels": {"app": "server"}}


def policy(kind: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": "rule"},
        "spec": spec,
    }


def authorization(action: str, rule: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return policy("AuthorizationPolicy", action=action, rules=[rule], **spec)


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


CASES = {
    "by namespace": (lambda town: authorization("ALLOW", source(namespaces=[town.inside])), INSIDE, INSIDE),
    "not that namespace": (
        lambda town: authorization("DENY", source(notNamespaces=[town.other]), selector=SELECTOR),
        OTHER,
        OTHER,
    ),
    "by principal": (
        lambda town: authorization(
            "ALLOW", source(principals=[f"cluster.local/ns/{town.other}/sa/default"]), selector=SELECTOR
        ),
        OTHER,
        OTHER,
    ),
    "by address": (
        lambda town: authorization("DENY", source(ipBlocks=list(town.far))),
        ALL - {"inside far"},
        ALL - {"inside far"},
    ),
    "by port": (
        lambda town: authorization("DENY", {"to": [{"operation": {"ports": ["9000"]}}]}, selector=SELECTOR),
        set(),
        ALL,
    ),
    "nobody": (lambda town: policy("AuthorizationPolicy"), set(), set()),
    "strict": (
        lambda town: policy("PeerAuthentication", mtls={"mode": "STRICT"}),
        INSIDE | OTHER,
        INSIDE | OTHER,
    ),
    "strict but for a port": (
        lambda town: policy(
            "PeerAuthentication",
            selector=SELECTOR,
            mtls={"mode": "STRICT"},
            portLevelMtls={9001: {"mode": "PERMISSIVE"}},
        ),
        INSIDE | OTHER,
        ALL,
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.feature("F7", "F11", "F12")
def test_a_policy_is_in_force_once_acknowledged(mesh: Mesh, town: Town, case: str) -> None:
    make, *wanted = CASES[case]
    value = make(town)
    mesh.wait("no policy is left", lambda: answers(mesh, town) == [ALL, ALL])
    with applied(mesh, town.inside, value):
        assert answers(mesh, town) == wanted


class applied:
    """The policy is there and acknowledged."""

    def __init__(self, mesh: Mesh, namespace: str, value: dict[str, Any]) -> None:
        self._mesh, self._namespace, self._value = mesh, namespace, value

    def __enter__(self) -> None:
        self._mesh.kubectl("apply", "-n", self._namespace, "-f", "-", stdin=yaml.safe_dump(self._value))
        condition = "--for=condition=ambit.io/Acknowledged"
        what = f"{self._value['kind']}/rule".lower()
        self._mesh.kubectl("wait", condition, what, "-n", self._namespace, "--timeout=110s")

    def __exit__(self, *_: object) -> None:
        self._mesh.kubectl("delete", self._value["kind"].lower(), "rule", "-n", self._namespace)


@pytest.mark.parametrize("part", ["node agent", "envoy"])
@pytest.mark.parametrize("node", [0, 1])
def test_a_policy_is_not_acknowledged_by_who_is_just_killed(
    mesh: Mesh, town: Town, part: str, node: int
) -> None:
    mesh.wait("no policy is left", lambda: answers(mesh, town) == [ALL, ALL])
    value = authorization("ALLOW", source(namespaces=[town.inside]))
    mesh.kill(part, mesh.nodes[node], until_back=False)
    with applied(mesh, town.inside, value):
        assert all(by_port <= INSIDE for by_port in answers(mesh, town))
        mesh.wait("who may is served", lambda: answers(mesh, town) == [INSIDE, INSIDE])


@pytest.mark.feature("F12")
@pytest.mark.parametrize("family", [0, -1])
def test_open_connections_that_are_denied_are_cut_and_no_others(mesh: Mesh, town: Town, family: int) -> None:
    address = town.server[family]
    denied = [Talk(mesh, town.other, name, address) for name in ("near", "far")]
    denied += [Talk(mesh, town.outside, name, address) for name in ("near", "far")]
    allowed = [Talk(mesh, town.inside, name, address) for name in ("near", "far")]
    value = authorization("ALLOW", source(namespaces=[town.inside]))
    begin = time.monotonic()
    with applied(mesh, town.inside, value):
        acknowledged = time.monotonic()
        moments = [each.cut_at() for each in denied]
    assert begin < min(moments)
    # At once, and not by anybody's time-out.
    assert max(moments) < acknowledged + 20
    assert [each.last_word() for each in allowed] == ["alive"] * 2

    def told() -> set[tuple[str, str]]:
        """Client and reporter of connections that were cut."""
        words = ("flows", "--last", "1000", "--from", f"{town.other}/far", "-o", "json")
        found = map(json.loads, mesh.ambit(*words).stdout.splitlines())
        return {(flow["reporter"], flow["decision"]) for flow in found if flow.get("cut")}

    mesh.wait("both sides tell the cut", lambda: told() == {("source", "deny"), ("destination", "deny")})


@pytest.mark.feature("F1")
def test_a_namespace_leaves_the_mesh_and_comes_back_without_a_drop(mesh: Mesh, town: Town) -> None:
    talks = [
        Talk(mesh, namespace, name, address)
        for namespace in (town.inside, town.other)
        for name in ("near", "far")
        for address in town.server
    ]
    calls = [
        Calls(mesh, namespace, name, town.server[0])
        for namespace, name in (
            (town.inside, "far"),
            (town.other, "near"),
            (town.other, "far"),
            (town.outside, "far"),
        )
    ]
    label = "istio.io/dataplane-mode"
    try:
        mesh.kubectl("label", "namespace", town.inside, f"{label}-")
        mesh.wait("no pod is enrolled", lambda: not enrolled(mesh, town.inside))
        assert answers(mesh, town) == [ALL, ALL]
    finally:
        mesh.kubectl("label", "namespace", town.inside, f"{label}=ambient")
    mesh.wait("all pods are enrolled", lambda: len(enrolled(mesh, town.inside)) == 3)
    assert answers(mesh, town) == [ALL, ALL]
    assert [each.last_word() for each in talks] == ["alive"] * len(talks)
    said = [each.last_word() for each in calls]
    assert all(each.startswith("well") for each in said), said


def enrolled(mesh: Mesh, namespace: str) -> list[str]:
    found = json.loads(mesh.kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
    annotation = "ambient.istio.io/redirection"
    return [
        each["metadata"]["name"] for each in found if annotation in each["metadata"].get("annotations", {})
    ]
