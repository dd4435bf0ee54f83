"""Requests that are routed in their caller's node: how their backends are called."""

from typing import Any

import msgspec

from ambit.model.backend_tls import BackendTls
from ambit.model.http import Action, Backend, Entry, Host, Mirror, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service
from ambit.plan.values import CLUSTER, LISTENER, ROUTES
from tests.plan import cases
from tests.plan.as_text import content_of


def _endpoints(service: Service) -> list[Any]:
    (cluster,) = (each for each in cases.secured(service) if each.type_url == CLUSTER)
    (locality,) = content_of(cluster)["load_assignment"]["endpoints"]
    found: list[Any] = locality.get("lb_endpoints", [])
    return found


def test_who_can_trust_no_server_calls_none() -> None:
    """Not in plain text either."""
    assert len(_endpoints(cases.SECURED)) == 1
    nobody = {80: BackendTls("secured.example.com")}
    assert not _endpoints(msgspec.structs.replace(cases.SECURED, backend_tls=nobody))


def _routed(action: Action, **more: Any) -> list[tuple[str, str]]:
    """Kinds and names of what the client has for a service with this one rule, each without the reader's name."""
    key = cases.SECURED.key
    table = ServiceRoutes(key, 80, (Host(("*",), (Entry("e", RequestMatch(), action),)),))
    made = cases.secured(msgspec.structs.replace(cases.SECURED, inline=(table,), **more))
    kinds = {CLUSTER: "cluster", LISTENER: "listener"}
    found = ((kinds.get(each.type_url, ""), each.name) for each in made)
    return [(kind, name.partition(":80|")[2]) for kind, name in found if kind and ":80|" in name]


def test_a_backend_that_does_not_exist_has_no_cluster() -> None:
    """So that it is answered with 500, as at a waypoint."""
    key = cases.SECURED.key
    both = Action((Backend(key, 80), Backend("default/gone.default.svc.cluster.local", 80)))
    assert _routed(both) == [("cluster", f"{key}|80")]


def test_copies_take_a_way_of_their_own() -> None:
    """With TLS its bytes are what the listener leads on."""
    key = cases.SECURED.key
    mirrors = (Mirror(key, 80), Mirror("default/gone.default.svc.cluster.local", 80), Mirror("", 0))
    copied = Action((Backend(key, 80),), mirrors=mirrors)
    way = [("cluster", f"copies|{key}|80"), ("listener", f"copies|{key}|80")]
    assert _routed(copied, backend_tls={}) == [("cluster", f"{key}|80"), *way]
    assert _routed(copied) == [("cluster", f"{key}|80"), ("cluster", f"copies|{key}|80"), *way]


def test_routes_of_other_callers_are_in_nobodys_table() -> None:
    def entry(name: str, *namespaces: str) -> Entry:
        match = RequestMatch(source_namespaces=namespaces)
        return Entry(name, match, Action((Backend(f"{name}/{name}", 80),)))

    hosts = (Host(("*",), (entry("theirs", "other"), entry("own", "default"), entry("all"))),)
    routes = (ServiceRoutes(cases.SECURED.key, 80, hosts),)
    found = cases.secured(msgspec.structs.replace(cases.SECURED, inline=routes))
    (table,) = (content_of(each) for each in found if each.type_url == ROUTES)
    assert [each["name"] for host in table["virtual_hosts"] for each in host["routes"]] == ["own", "all"]
