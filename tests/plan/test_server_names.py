"""What a waypoint gets for hosts that are found by the name in a client's hello. (That a real one leads there, and to
what not: `tests/mesh/test_server_names.py`.)"""

import ipaddress
from typing import Any

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.l7.server_names import SHARES
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.server_names import NamesNote
from ambit.model.service import AppProtocol, ServerNames, Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import Port
from ambit.plan.l7 import server_names, waypoint
from ambit.plan.values import CLUSTER, ENDPOINTS, LISTENER, SECRET, NodeSettings, PlannedResource
from tests.plan.as_text import content_of

PROXY = Proxy(
    "default/way",
    ProxyKind.WAYPOINT,
    Identity("cluster.local", "default", "way"),
    "way.default.svc.cluster.local",
    ObjectRef("Gateway", "default", "way"),
)


def service(host: str, *ranges: str) -> Service:
    return Service(
        "hosts",
        "default",
        host,
        addresses=(VirtualAddress("", ipaddress.ip_address("240.240.0.9")),),
        ports=(Port(443, 8443),),
        app_protocols={443: AppProtocol.TLS},
        server_names=ServerNames(ranges),
    )


def made(*services: Service) -> dict[tuple[str, str], PlannedResource]:
    view = Snapshot([], services)
    found = waypoint.resources(PROXY, waypoint.Bound(services), view, NodeSettings(node=""))
    return {(each.type_url, each.name): each for each in found}


def test_a_hello_of_the_pattern_is_resolved_by_the_agent_and_nothing_else_goes_on() -> None:
    found = made(service("*.x.test"))
    key = "default/*.x.test"
    listener: Any = content_of(found[LISTENER, names.service_cluster(key, 443)])
    (named,) = listener["filter_chain_matcher"]["matcher_list"]["matchers"]
    assert named["predicate"]["single_predicate"]["value_match"] == {"suffix": ".x.test", "ignore_case": True}
    assert "default_filter_chain" not in listener and "on_no_match" not in listener["filter_chain_matcher"]
    assert len(listener["filter_chains"]) == SHARES
    caches = []
    for share, chain in enumerate(listener["filter_chains"]):
        name = names.server_names(key, 443, share)
        resolved, proxy = (each["typed_config"] for each in chain["filters"])
        assert resolved["port_value"] == 8443 and chain["name"] == proxy["cluster"] == name
        cluster: Any = content_of(found[CLUSTER, name])
        caches.append(resolved["dns_cache_config"])
        assert cluster["cluster_type"]["typed_config"]["dns_cache_config"] == caches[-1]
    assert len({each["name"] for each in caches}) == SHARES, "callers of one share refuse no others anything"
    cache = caches[0]
    assert cache["dns_lookup_family"] == "V4_ONLY"
    (place,) = cache["typed_dns_resolver_config"]["typed_config"]["resolvers"]
    assert place["socket_address"] == {"protocol": "UDP", "address": "127.0.0.1", "port_value": 15053}
    endpoints: Any = content_of(found[ENDPOINTS, names.service_cluster(key, 443)])
    assert not endpoints["endpoints"][0].get("lb_endpoints"), "no route leads there in another way"


def test_the_agent_is_told_what_to_resolve() -> None:
    found = made(service("*.x.test"), service("*.a.test", "10.20.0.0/16"))
    note = server_names.parse(found[SECRET, names.NAMES].body)
    assert note == NamesNote(("*.a.test", "*.x.test"), ("10.20.0.0/16",))
    assert (SECRET, names.NAMES) not in made()
