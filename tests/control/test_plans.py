"""What proxies get, and which change concerns whom."""

import ipaddress

import msgspec
import pytest
from google.protobuf.any_pb2 import Any as Packed

from ambit.ca.trust import Trust
from ambit.control.l7.plans import ORDER, Plans
from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.backend_tls import BackendTls
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch
from ambit.model.jwt import KeySource, Target, TokenPolicy, TokenRule
from ambit.model.proxy import Listener, ListenerRoutes, Protocol, Proxy, ProxyKind, ServiceRoutes
from ambit.model.request_policy import RequestAction, RequestPolicy, Rule
from ambit.model.service import AppProtocol, Service, VirtualAddress, WeightedWaypoint
from ambit.model.streams import Datagrams, Stream
from ambit.model.workload import GatewayAddress, Port, TunnelProtocol, Workload
from ambit.plan import authority
from ambit.plan.l7 import waypoint
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET, NodeSettings
from ambit.xds.store import Part

PROXY = Proxy(
    "shop/way",
    ProxyKind.WAYPOINT,
    Identity("cluster.local", "shop", "way"),
    "way.shop.svc.cluster.local",
    ObjectRef("Gateway", "shop", "way"),
)
OTHER = msgspec.structs.replace(PROXY, key="shop/other", service="other.shop.svc.cluster.local")
WAY = GatewayAddress(15008, namespace="shop", hostname=PROXY.service)


def service(name: str, waypoint: GatewayAddress | None = WAY) -> Service:
    return Service(
        name,
        "shop",
        f"{name}.shop.svc.cluster.local",
        addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.7")),),
        ports=(Port(80, 8080),),
        app_protocols={80: AppProtocol.HTTP11},
        waypoint=waypoint,
    )


def workload(name: str, *services: Service, address: str = "10.244.1.2") -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/shop/{name}",
        name=name,
        namespace="shop",
        identity=Identity("cluster.local", "shop", name),
        addresses=(ipaddress.ip_address(address),),
        tunnel=TunnelProtocol.HBONE,
        services={each.key: each.ports for each in services},
    )


WEB, DB, NEXT = service("web"), service("db", None), service("next", None)
ROUTE = ServiceRoutes(
    WEB.key, 80, (Host(("*",), (Entry("r", RequestMatch(), Action((Backend(NEXT.key, 80),))),)),)
)


def delta(
    *values: Proxy
    | Service
    | Workload
    | ServiceRoutes
    | TokenPolicy
    | RequestPolicy
    | ListenerRoutes
    | Datagrams,
    gone: tuple[str, ...] = (),
) -> MeshDelta:
    """These are new or others; the keys in `gone` are of whatever kind they are."""

    def of(kind: type) -> Delta:  # type: ignore[type-arg]
        return Delta({each.key: each for each in values if isinstance(each, kind)}, gone)

    return MeshDelta(
        workloads=of(Workload),
        services=of(Service),
        proxies=of(Proxy),
        routes=of(ServiceRoutes),
        listener_routes=of(ListenerRoutes),
        datagrams=of(Datagrams),
        tokens=of(TokenPolicy),
        request_policies=of(RequestPolicy),
    )


@pytest.fixture
def plans() -> Plans:
    made = Plans(NodeSettings(node=""), lambda: Trust("", "", "ab12"))
    made.take(delta(PROXY, OTHER, WEB, DB, NEXT, workload("web", WEB), workload("db", DB)))
    return made


def held(plans: Plans, type_url: str, proxy: Proxy = PROXY) -> set[str]:
    return set(plans.open(proxy).resources(type_url))


def test_a_proxy_gets_what_is_bound_to_it(plans: Plans) -> None:
    assert names.service_cluster(WEB.key, 80) in held(plans, LISTENER)
    assert names.service_cluster(DB.key, 80) not in held(plans, LISTENER)
    assert held(plans, ROUTES, OTHER) == {names.HBONE}
    assert held(plans, SECRET) == {names.TRUST, names.AUTHORITY}


def test_nobody_is_told_of_what_concerns_nobody(plans: Plans) -> None:
    plans.open(PROXY)
    assert not plans.take(delta(workload("db", DB, address="10.244.1.9"), service("lonely", None)))


def test_an_endpoint_that_moves_is_told_to_whom_it_concerns(plans: Plans) -> None:
    plans.open(PROXY)
    plans.open(OTHER)
    found = plans.take(delta(workload("web", WEB, address="10.244.1.9")))
    assert set(found) == {"shop/way"}
    assert [part.type_url for part in found["shop/way"].parts] == [ENDPOINTS]
    packed = plans.open(PROXY).resources(ENDPOINTS)[names.service_cluster(WEB.key, 80)].body
    assert b"10.244.1.9" in Packed.FromString(packed).value


def test_an_endpoint_that_ends_is_taken_away(plans: Plans) -> None:
    plans.open(PROXY)
    found = plans.take(delta(gone=(workload("web").key,)))
    (part,) = (each for each in found["shop/way"].parts if each.type_url == ENDPOINTS)
    assert b"10.244.1.2" not in part.resources[0].body


def test_a_route_brings_its_backends(plans: Plans) -> None:
    plans.open(PROXY)
    found = plans.take(delta(ROUTE))
    touched = {part.type_url for part in found["shop/way"].parts}
    assert touched == {CLUSTER, ENDPOINTS, ROUTES}
    assert plans.take(delta(workload("next", NEXT)))
    assert plans.take(delta(gone=(ROUTE.key,)))
    assert names.service_cluster(NEXT.key, 80) not in held(plans, CLUSTER)
    assert not plans.take(delta(workload("next", NEXT, address="10.244.1.3")))


def test_endpoints_of_a_udp_port_are_told_to_gateways_that_send_there_and_change_no_listener(
    plans: Plans,
) -> None:
    udp = Listener("udp", 53, Protocol.UDP)
    edge = msgspec.structs.replace(PROXY, key="shop/edge", kind=ProxyKind.GATEWAY, listeners=(udp,))
    one = Datagrams(DB.key, 53, ((ipaddress.ip_address("10.244.1.2"), 53),))
    plans.take(delta(edge, one))
    plans.open(edge)
    routed = ListenerRoutes(edge.key, "udp", streams=(Stream("r", (Backend(DB.key, 53),)),))
    assert set(plans.take(delta(routed))) == {edge.key}
    assert held(plans, LISTENER, edge) >= {names.gateway_udp_port(53)}
    assert names.service_cluster(DB.key, 53) not in held(plans, CLUSTER, edge)

    def told(address: str) -> bool:
        assigned = plans.open(edge).resources(ENDPOINTS)[names.gateway_udp_port(53)].body
        return address.encode() in Packed.FromString(assigned).value

    assert told("10.244.1.2")
    moved = msgspec.structs.replace(one, endpoints=((ipaddress.ip_address("10.244.1.9"), 53),))
    found = plans.take(delta(moved))
    assert [part.type_url for part in found[edge.key].parts] == [ENDPOINTS] and told("10.244.1.9")
    assert not plans.take(delta(msgspec.structs.replace(one, port=54)))
    plans.take(delta(gone=(one.key,)))
    assert not told("10.244.1.9")


def test_binding_and_unbinding(plans: Plans) -> None:
    plans.open(PROXY)
    plans.take(delta(service("db")))
    assert names.service_cluster(DB.key, 80) in held(plans, LISTENER)
    other = GatewayAddress(15008, namespace="shop", hostname=OTHER.service)
    plans.open(OTHER)
    assert set(plans.take(delta(service("db", other)))) == {"shop/way", "shop/other"}
    assert names.service_cluster(DB.key, 80) not in held(plans, LISTENER)
    assert names.service_cluster(DB.key, 80) in held(plans, LISTENER, OTHER)
    assert set(plans.take(delta(gone=(DB.key,)))) == {"shop/other"}


def test_a_workload_is_bound_by_its_own_address(plans: Plans) -> None:
    plans.open(PROXY)
    bound = msgspec.structs.replace(workload("db", DB), waypoint=WAY)
    assert set(plans.take(delta(bound))) == {"shop/way"}
    name = names.service_cluster(bound.uid, 0)
    assert name in held(plans, LISTENER)
    moved = msgspec.structs.replace(bound, identity=Identity("cluster.local", "shop", "new"))
    changed = {part.type_url for part in plans.take(delta(moved))["shop/way"].parts}
    assert changed == {CLUSTER, ENDPOINTS}
    plans.take(delta(gone=(bound.key,)))
    assert name not in held(plans, LISTENER)


def test_a_gateway_that_is_gone_leaves_a_proxy_that_carries_nothing(plans: Plans) -> None:
    plans.open(PROXY)
    assert plans.take(delta(gone=(PROXY.key,)))
    assert plans.inputs.proxy(PROXY.key) is None
    assert held(plans, ROUTES) == {names.HBONE}


def test_nothing_is_kept_for_who_is_gone(plans: Plans) -> None:
    plans.open(PROXY)
    plans.close(PROXY.key)
    assert not plans.take(delta(workload("web", WEB, address="10.244.1.9")))


def test_a_proxy_that_cannot_be_told_something_harms_nobody_else(
    plans: Plans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps what it has, and gets the next change; one that comes now is refused and leaves nothing behind."""
    address = msgspec.structs.replace(WAY, hostname=OTHER.service)
    plans.take(delta(OTHER, PROXY))
    plans.open(OTHER)
    plans.open(PROXY)
    before = held(plans, CLUSTER)

    def broken(proxy: Proxy, *rest: object) -> object:
        if proxy.key == PROXY.key:
            raise ValueError("out of range")
        return made(proxy, *rest)  # type: ignore[arg-type]

    made = waypoint.resources
    with monkeypatch.context() as patched:
        patched.setattr(waypoint, "resources", broken)
        assert plans.take(delta(service("more"), service("theirs", address))).keys() == {OTHER.key}
        assert held(plans, CLUSTER) == before
        assert "a proxy cannot be told" in caplog.text
        plans.close(PROXY.key)
        with pytest.raises(ValueError, match="out of range"):
            plans.open(PROXY)
        assert plans.take(delta(service("most"))) == {}
    plans.open(PROXY)
    assert held(plans, CLUSTER) > before


def test_trust_is_told_to_all() -> None:
    trust = [Trust("-----BEGIN CERTIFICATE-----\nold\n", "", "ab12")]
    plans = Plans(NodeSettings(node=""), lambda: trust[0])
    plans.take(delta(PROXY, OTHER))
    plans.open(PROXY)
    plans.open(OTHER)
    assert not plans.retrust()
    trust[0] = Trust("-----BEGIN CERTIFICATE-----\nnew\n", "", "ab12")
    found = plans.retrust()
    assert {key: [_told(part) for part in each.parts] for key, each in found.items()} == {
        "shop/way": [(SECRET, names.TRUST)],
        "shop/other": [(SECRET, names.TRUST)],
    }


def test_another_signer_is_told_although_the_roots_stay() -> None:
    trust = [Trust("roots", "", "ab12")]
    plans = Plans(NodeSettings(node=""), lambda: trust[0])
    plans.take(delta(PROXY))
    store = plans.open(PROXY)
    trust[0] = Trust("roots", "", "cd34")
    (part,) = plans.retrust()["shop/way"].parts
    assert _told(part) == (SECRET, names.AUTHORITY)
    note = authority.parse(store.resources(SECRET)[names.AUTHORITY].body)
    assert (note.signer, note.revoked) == ("cd34", ())


def _told(part: Part) -> tuple[str, str]:
    (resource,) = part.resources
    return part.type_url, resource.name


SOURCE = KeySource("https://issuer.example/keys")
TOKENS = TokenPolicy(
    ObjectRef("RequestAuthentication", "shop", "tokens"),
    (Target("Gateway", "shop", "way"),),
    (TokenRule("https://issuer.example", source=SOURCE),),
)


def test_rules_about_tokens_are_told_to_whom_they_concern(plans: Plans) -> None:
    plans.open(PROXY)
    plans.open(OTHER)
    elsewhere = msgspec.structs.replace(TOKENS, targets=(Target("Service", "shop", "db"),))
    for policy, told in ((elsewhere, set()), (TOKENS, {"shop/way"}), (elsewhere, {"shop/way"})):
        found = plans.take(delta(policy))
        assert set(found) == told
        assert {part.type_url for each in found.values() for part in each.parts} <= {EXTENSION}
    plans.take(delta(TOKENS))
    assert set(plans.take(delta(gone=(TOKENS.key,)))) == {"shop/way"}
    canonical = msgspec.structs.replace(WEB, canonical=True)
    plans.take(delta(canonical))
    of_service = msgspec.structs.replace(TOKENS, targets=(Target("Service", "shop", "web"),))
    assert set(plans.take(delta(of_service))) == {"shop/way"}


def test_policies_are_told_to_the_gateways_that_they_are_for(plans: Plans) -> None:
    """Requests are judged by an extension, bytes by the listener itself."""
    listeners = (Listener("http", 80, Protocol.HTTP), Listener("tcp", 90, Protocol.TCP))
    edge = msgspec.structs.replace(PROXY, key="shop/edge", kind=ProxyKind.GATEWAY, listeners=listeners)
    plans.take(delta(edge, ListenerRoutes(edge.key, "tcp", streams=(Stream("r", (Backend(DB.key, 90),)),))))
    plans.open(edge)

    def resources() -> dict[str, bytes]:
        store = plans.open(edge)
        found = {**store.resources(EXTENSION), **store.resources(LISTENER)}
        return {name: each.body for name, each in found.items()}

    before = resources()
    elsewhere = RequestPolicy(
        "p", "shop", RequestAction.DENY, (Target("Gateway", "shop", "other"),), (Rule(),)
    )
    assert not plans.take(delta(elsewhere))
    ours = msgspec.structs.replace(elsewhere, targets=(Target("Gateway", "shop", "edge"),))
    assert set(plans.take(delta(ours))) == {edge.key}
    after = resources()
    changed = {name for name, body in after.items() if before[name] != body}
    assert changed == {
        names.allowed(edge.key, 80),
        names.gateway_port(90),
        names.judged(edge.key, 90)[0],
    }
    assert set(plans.take(delta(elsewhere))) == {edge.key}
    assert resources() == before


def test_keys_are_told_to_whom_they_concern(plans: Plans) -> None:
    plans.open(PROXY)
    plans.open(OTHER)
    plans.take(delta(TOKENS))
    assert not plans.rekey({KeySource("https://other.example"): "{}"})
    assert set(plans.rekey({SOURCE: "the keys"})) == {"shop/way"}
    assert b"the keys" in plans.open(PROXY).resources(EXTENSION)[names.tokens(WEB.key)].body
    assert not plans.rekey({SOURCE: "the keys"})


def test_what_was_made_before_is_as_if_it_were_made_anew(plans: Plans) -> None:
    plans.open(PROXY)
    cert = BackendTls("db.example.com", "", ("db.example.com",))
    closed = msgspec.structs.replace(NEXT, backend_tls={80: cert})
    moved = workload("next", NEXT, address="10.244.1.8")
    stream = ServiceRoutes(WEB.key, 80, streams=(Stream("s", (Backend(NEXT.key, 80),)),))
    deny = RequestPolicy("deny", "shop", RequestAction.DENY, TOKENS.targets)
    steps = [delta(ROUTE), delta(moved), delta(closed), delta(stream), delta(NEXT), delta(ROUTE)]
    steps += [delta(TOKENS), delta(deny), delta(msgspec.structs.replace(deny, action=RequestAction.ALLOW))]
    steps += [delta(gone=(TOKENS.key,)), delta(stream), delta(gone=(deny.key,)), delta(ROUTE)]
    steps += [delta(gone=(ROUTE.key,)), delta(gone=(WEB.key,)), delta(WEB)]
    for index, step in enumerate(steps):
        plans.take(step)
        anew = Plans(NodeSettings(node=""), lambda: Trust("", "", "ab12"))
        anew.take(delta(PROXY, OTHER, WEB, DB, NEXT, workload("web", WEB), workload("db", DB)))
        for former in steps[: index + 1]:
            anew.take(former)
        expected = anew.open(PROXY)
        for type_url in ORDER:
            assert dict(plans.open(PROXY).resources(type_url)) == dict(expected.resources(type_url))


def test_a_service_with_a_canary_is_served_by_both(plans: Plans) -> None:
    other = GatewayAddress(15008, namespace="shop", hostname=OTHER.service)
    name = names.service_cluster(WEB.key, 80)
    assert name not in held(plans, LISTENER, OTHER)
    shared = msgspec.structs.replace(
        WEB, weighted_waypoints=(WeightedWaypoint(WAY, 90), WeightedWaypoint(other, 10))
    )
    plans.take(delta(shared))
    assert name in held(plans, LISTENER)
    assert name in held(plans, LISTENER, OTHER)
    plans.take(delta(WEB))
    assert name in held(plans, LISTENER)
    assert name not in held(plans, LISTENER, OTHER)


def test_what_has_left_a_waypoint_is_served_as_long_as_it_is_kept(plans: Plans) -> None:
    kept = {WEB.key}
    plans.inputs.kept = lambda place: kept if place == ("shop", PROXY.service) else ()
    plans.open(PROXY)
    plans.take(delta(service("web", None)))
    assert names.service_cluster(WEB.key, 80) in held(plans, LISTENER)
    kept.clear()
    assert not plans.release([("shop", OTHER.service)])
    assert set(plans.release([("shop", PROXY.service)])) == {PROXY.key}
    assert names.service_cluster(WEB.key, 80) not in held(plans, LISTENER)
