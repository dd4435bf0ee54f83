"""Requests that are routed in their caller's node: how their backends are called."""

import re
from typing import Any

import msgspec

from ambit.model.backend_tls import BackendTls
from ambit.model.http import Action, Backend, Entry, Host, Mirror, RequestMatch
from ambit.model.provider import ProviderService
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service
from ambit.model.telemetry import LogRule, LogService, Printer
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
    names = [each["name"] for host in table["virtual_hosts"] for each in host["routes"] if "name" in each]
    assert names == ["own", "all"]


def _ways_of_logs(to: ProviderService) -> dict[str, Any]:
    """What the access logs of the service are sent by, to a service that may be there, each without the reader's
    name."""
    told = cases.LOGGED.telemetry
    assert told is not None
    rules = (LogRule((Printer("p", to=LogService(to, "mine")),)),)
    policies = tuple(msgspec.structs.replace(each, logs=rules) for each in told.policies)
    telemetry = msgspec.structs.replace(told, policies=policies)
    made = cases.secured(msgspec.structs.replace(cases.LOGGED, telemetry=telemetry))
    found = (each for each in made if ":80|logs|" in each.name)
    return {
        f"{each.type_url.rpartition('.')[2]} {each.name.partition('|')[0]}": content_of(each)
        for each in found
    }


def test_access_logs_go_to_endpoints_in_the_pods_name() -> None:
    """Also those of requests to who is told of them: telling is no request to the service that it could be told of."""
    made = _ways_of_logs(ProviderService(cases.LOGGED.hostname, 80))
    assert set(made) == {"Cluster svc", "Cluster into", "Listener svc"}
    (locality,) = made["Cluster into"]["load_assignment"]["endpoints"]
    (endpoint,) = locality["lb_endpoints"]
    assert "req|" not in str(endpoint)
    assert endpoint["metadata"]["filter_metadata"]["ambit"]["cluster"].startswith("hbone|")
    assert cases.CLIENT.identity.uri in str(made["Listener svc"])


def test_of_a_service_that_is_not_there_nobody_is_told() -> None:
    (cluster,) = _ways_of_logs(cases.LOGS).values()
    assert "load_assignment" not in cluster


def test_who_is_told_is_called_by_what_the_logs_name() -> None:
    made = {(each.type_url, each.name) for each in cases.secured(cases.LOGGED)}
    (reader,) = (
        each
        for each in cases.secured(cases.LOGGED)
        if each.type_url == LISTENER and each.name.startswith("req|")
    )
    named = set(re.findall(r"'cluster_name': '(svc[^']*)'", str(content_of(reader))))
    assert len(named) == 1 and {(CLUSTER, each) for each in named} < made
