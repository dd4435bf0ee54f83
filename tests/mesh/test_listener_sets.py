"""Namespaces that add listeners to a gateway which they share."""

import json
from typing import Any

import pytest

from ambit.ingest.gateway.shares import MOST
from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod, web_and_client
from tests.mesh.test_gateway import Shop, gateway, route

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
PER_SET = 64
"""The most that the API lets a set have."""


def listener_set(name: str, parent: str, *hosts: str) -> dict[str, Any]:
    listeners = [
        {"name": f"l{number}", "port": 80, "protocol": "HTTP", "hostname": host}
        for number, host in enumerate(hosts)
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "ListenerSet",
        "metadata": {"name": name},
        "spec": {"parentRef": {"name": "front", "namespace": parent}, "listeners": listeners},
    }


def on_sets(*names: str) -> dict[str, Any]:
    parents = [{"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": each} for each in names]
    return route({"backendRefs": [{"name": "web", "port": 80}]}, parentRefs=parents)


@pytest.mark.feature("O1")
def test_a_namespace_has_its_share_of_listeners_and_takes_nobody_elses(mesh: Mesh) -> None:
    with (
        make_namespace(mesh) as shared,
        make_namespace(mesh) as greedy,
        make_namespace(mesh) as modest,
        make_namespace(mesh, enrolled=False) as outside,
    ):
        apply_in(mesh, outside, [pod("client", mesh.nodes[0], ["sleep", "3600"])])
        shop = Shop(mesh, shared, outside)
        shop.apply(gateway(allowedListeners={"namespaces": {"from": "All"}}))
        for namespace in (greedy, modest):
            apply_in(mesh, namespace, web_and_client())

        def in_namespace(namespace: str, *objects: dict[str, Any]) -> None:
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
            mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=text)

        def said(namespace: str, name: str) -> dict[str, str]:
            path = (
                "{range .status.listeners[*]}{.name} {.conditions[?(@.type=='Accepted')].reason}{'\\n'}{end}"
            )
            words = ("get", "listenerset", name, "-n", namespace, "-o", f"jsonpath={path}")
            lines = mesh.kubectl(*words).stdout.splitlines()
            return dict(line.split(" ", 1) for line in lines)

        names = [f"s{number}" for number in range(MOST // PER_SET)]
        full = [
            listener_set(name, shared, *(f"h{n}.{name}.example" for n in range(PER_SET))) for name in names
        ]
        in_namespace(greedy, *full, on_sets(names[-1], "t"))
        mesh.wait("all of them to be accepted", lambda: set(said(greedy, names[-1]).values()) == {"Accepted"})
        in_namespace(greedy, listener_set("t", shared, "more.example", "most.example"))
        in_namespace(modest, listener_set("own", shared, "modest.example"), on_sets("own"))
        refused = {"l0": "TooManyListeners", "l1": "TooManyListeners"}
        mesh.wait("what is beyond to be refused", lambda: said(greedy, "t") == refused)
        mesh.wait("the other namespace's", lambda: said(modest, "own") == {"l0": "Accepted"})
        address = shop.address()
        shop.until(address, "200", host="modest.example")
        shop.until(address, "200", host=f"h{PER_SET - 1}.{names[-1]}.example")
        assert shop.status_of(address, host="more.example") == "404"

        mesh.kubectl("delete", "listenerset", names[0], "-n", greedy)
        shop.until(address, "200", host="more.example")
        assert said(greedy, "t") == {"l0": "Accepted", "l1": "Accepted"}
