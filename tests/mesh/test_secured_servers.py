"""Servers behind a waypoint that speak TLS, of Services and of ServiceEntries, at both placements."""

import json
from typing import Any

import pytest

from tests.ingest.gateway.pairs import Authority
from tests.mesh.placements import at_both
from tests.mesh.pods import apply_in, pod
from tests.mesh.secured import SECURED, roots, tls_policy
from tests.mesh.shop import Shop, make_shop, no_admin

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

shops, shop = at_both(lambda mesh, of_class: make_shop(mesh, of_class, "service"))


@pytest.mark.feature("F63")
def test_servers_are_spoken_to_with_tls(shop: Shop) -> None:
    """On the caller's node and on another. A policy for requests is enforced where they can be read: an inline waypoint
    lets nobody in, because pods' nodes see TLS, and says so."""
    mesh, namespace, authority = shop.mesh, shop.namespace, Authority()
    pair = authority.pair("secured.example.com")
    names = [f"secured-{place}" for place in range(2)]
    of_server = {
        "env": [{"name": "PAIR", "value": pair.chain + pair.key}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
    }
    ports = [{"name": "http", "port": 80, "targetPort": 8443}]
    given: list[dict[str, Any]] = [roots(authority.root), _tls_policy("secured.example.com", names)]
    for name, node in zip(names, mesh.nodes, strict=True):
        spec = {"selector": {"app": name}, "ports": ports}
        given.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        given.append(pod(name, node, ["python3", "-uc", SECURED], labels={"app": name}, **of_server))
    apply_in(mesh, namespace, given)
    well = "200 secured secured.example.com"
    for name in names:
        mesh.wait(f"TLS to {name}", lambda name=name: shop.ask(service=name) == well)  # type: ignore[misc]
    shop.apply(_tls_policy("other.example.com", names))
    for name in names:
        mesh.wait(f"a wrong {name}", lambda name=name: shop.ask(service=name).startswith("503"))  # type: ignore[misc]
    shop.apply(_tls_policy("secured.example.com", names), no_admin(names[0]))
    mesh.wait("the other one", lambda: shop.ask("/admin", service=names[1]) == well)
    _is_enforced(shop, names[0], "authorizationpolicy/no-admin", no="/admin", yes="/")
    mesh.kubectl(
        "delete", "-n", namespace, "authorizationpolicy/no-admin", *(f"pod/{each}" for each in names)
    )


def _is_enforced(shop: Shop, service: str, policy: str, *, no: str, yes: str) -> None:
    """Waits until it is, or until nobody is let in."""
    if shop.is_dedicated:
        shop.mesh.wait("the policy", lambda: shop.ask(no, service=service).startswith("403"))
        assert shop.ask(yes, service=service).startswith("200")
        wanted = "Accepted"
    else:
        for path in (no, yes):
            shop.mesh.wait(
                f"no {path}", lambda path=path: shop.ask(path, service=service).startswith("curl:")
            )  # type: ignore[misc]
        wanted = "NotEnforced"
    reason = "jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].reason}"
    get = ("get", "-n", shop.namespace, policy, "-o", reason)
    shop.mesh.wait(wanted, lambda: shop.mesh.kubectl(*get).stdout == wanted)


def _tls_policy(hostname: str, services: list[str]) -> dict[str, Any]:
    return tls_policy(hostname, *({"group": "", "kind": "Service", "name": each} for each in services))


_ENTRY = {
    "group": "networking.istio.io",
    "kind": "ServiceEntry",
    "name": "secured",
    "sectionName": "http",
}


def _no_admin_there() -> dict[str, Any]:
    """For the ServiceEntry."""
    made = no_admin("secured")
    target = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "secured"}
    return {**made, "spec": {**made["spec"], "targetRefs": [target]}}


@pytest.mark.feature("F48", "F63", "F93", "F94")
def test_what_goes_to_a_service_entry_leaves_the_mesh_as_tls(shop: Shop) -> None:
    """A policy for requests is enforced by a waypoint with pods only: what is outside enforces nothing itself."""
    mesh, namespace, authority = shop.mesh, shop.namespace, Authority()
    pair = authority.pair("secured.example.com")
    env = [{"name": "PAIR", "value": pair.chain + pair.key}]
    labels = {"istio.io/dataplane-mode": "none"}
    probe = {"tcpSocket": {"port": 8443}, "periodSeconds": 1}
    server = pod(
        "secured", mesh.nodes[0], ["python3", "-uc", SECURED], labels=labels, env=env, readinessProbe=probe
    )
    apply_in(mesh, namespace, [server])
    address = mesh.pod_addresses(namespace, "secured")[0]
    entry = {
        "hosts": ["secured.test"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8443}],
        "resolution": "STATIC",
        "endpoints": [{"address": address}],
    }
    shop.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "secured"},
            "spec": entry,
        },
        roots(authority.root),
        tls_policy("secured.example.com", _ENTRY),
    )
    well = "200 secured secured.example.com"
    mesh.wait("TLS to the server", lambda: shop.ask(service="secured.test") == well)
    shop.apply(_no_admin_there())
    _is_enforced(shop, "secured.test", "authorizationpolicy/no-admin", no="/admin", yes="/")
    mesh.kubectl("delete", "-n", namespace, "authorizationpolicy/no-admin")
    mesh.wait("no policy", lambda: shop.ask("/admin", service="secured.test") == well)
    shop.apply(tls_policy("other.example.com", _ENTRY))
    mesh.wait("a server of another name", lambda: shop.ask(service="secured.test").startswith("503"))
    found = mesh.kubectl("get", "backendtlspolicy/secured", "-n", namespace, "-o", "json").stdout
    (ancestor,) = json.loads(found)["status"]["ancestors"]
    assert ancestor["ancestorRef"]["name"] == "way"
