"""Gateways at the edge: their listeners, which routes these take, and what statuses say."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambit.core.identity import Identity
from ambit.ingest.gateway.edge import label_value, objects_name
from ambit.ingest.gateway.features import Place, supported
from ambit.ingest.mesh import MeshCompiler
from ambit.model.proxy import Listener, Protocol, ProxyKind
from ambit.model.status import GatewayStatus, ObjectStatus, RouteStatus
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import GROUP, edge, gateway_class, grant, listener, namespace, to, to_edge
from tests.ingest.gateway.pairs import Authority, Pair, https, secret
from tests.ingest.gateway.test_gateways import said
from tests.ingest.test_mesh import change, compiler

WEB = service("web", {"app": "web"})
PAIR = Authority().pair("a")
RULE = {"backendRefs": [to("web")]}
FRONT = ({"name": "edge", "namespace": "front"},)


def status(made: MeshCompiler, name: str = "default/edge") -> GatewayStatus:
    found = made.statuses[f"Gateway {name}"]
    assert isinstance(found, GatewayStatus)
    return found


def listeners(made: MeshCompiler) -> dict[str, dict[str, tuple[str, str]]]:
    return {each.name: said(each.conditions) for each in status(made).listeners}


def route_said(made: MeshCompiler, name: str = "default/route") -> list[tuple[str, str]]:
    """`Accepted` of each parent of a route."""
    found = made.statuses[f"HTTPRoute {name}"]
    assert isinstance(found, RouteStatus)
    assert all(each.controller == "ambit.io/gateway-controller" for each in found.parents)
    return [said(each.conditions)["Accepted"] for each in found.parents]


def load_balancer(*ingress: dict[str, str]) -> Given:
    resource, body = service("edge-ambit", {"a": "b"}, ip="10.96.0.8", type="LoadBalancer")
    return resource, {**body, "status": {"loadBalancer": {"ingress": list(ingress)}}}


def test_a_gateway() -> None:
    proxy = compiler(edge()).proxies["default/edge"]
    assert (proxy.kind, proxy.identity) == (
        ProxyKind.GATEWAY,
        Identity("cluster.local", "default", "edge-ambit"),
    )
    assert proxy.service == "edge-ambit.default.svc.cluster.local"
    assert proxy.listeners == (Listener("http", 80, Protocol.HTTP),)


def test_it_is_programmed_when_it_has_an_outer_address_and_a_pod_is_ready() -> None:
    made = compiler(edge(), load_balancer())
    assert said(status(made).conditions) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("False", "AddressNotAssigned"),
    }
    made.apply([change(load_balancer({"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}))])
    assert said(status(made).conditions)["Programmed"] == ("False", "Pending")
    labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
    made.apply([change(pod("e-1", "10.244.1.9", labels=labels))])
    found = status(made)
    assert said(found.conditions)["Programmed"] == ("True", "Programmed")
    assert found.addresses == ("192.0.2.1", "lb.example.com")
    assert listeners(made)["http"] == {
        "Accepted": ("True", "Accepted"),
        "Conflicted": ("False", "NoConflicts"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
        "Programmed": ("True", "Programmed"),
    }
    made.apply([change(service("edge-ambit", {"a": "b"}, ip="10.96.0.8"))])
    assert status(made).addresses == ("10.96.0.8",)


def test_it_has_the_addresses_it_asks_for_or_says_which_it_lacks() -> None:
    labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
    ready = pod("e-1", "10.244.1.9", labels=labels)
    given = load_balancer({"ip": "192.0.2.1"}, {"ip": "2001:db8::1"})
    wants = [{"type": "IPAddress", "value": "192.0.2.9"}, {"type": "IPAddress", "value": "192.0.2.1"}]
    made = compiler(edge(addresses=wants), given, ready)
    assert said(status(made).conditions) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("False", "AddressNotUsable"),
    }
    made.apply([change(edge(addresses=wants[1:]))])
    assert said(status(made).conditions)["Programmed"] == ("True", "Programmed")
    assert status(made).addresses == ("192.0.2.1",)
    made.apply([change(edge(addresses=[{"type": "IPAddress"}]))])
    assert said(status(made).conditions)["Programmed"] == ("True", "Programmed")
    assert status(made).addresses == ("192.0.2.1", "2001:db8::1")


def test_one_good_listener_is_enough_and_none_is_not() -> None:
    bad = listener("bad", 81, "SPDY")
    made = compiler(edge(bad))
    assert said(status(made).conditions) == {
        "Accepted": ("False", "ListenersNotValid"),
        "Programmed": ("False", "Invalid"),
    }
    assert not made.proxies and status(made).listeners[0].kinds == ()
    made = compiler(edge(listener(), bad))
    assert said(status(made).conditions)["Accepted"] == ("True", "ListenersNotValid")
    assert listeners(made)["bad"]["Accepted"] == ("False", "UnsupportedProtocol")
    assert [each.name for each in made.proxies["default/edge"].listeners] == ["http"]


@pytest.mark.parametrize("port", [15000, 15020, 15021])
def test_ports_of_the_proxy_itself_are_not_to_be_had(port: int) -> None:
    made = compiler(edge(listener("own", port), listener()))
    assert listeners(made)["own"]["Accepted"] == ("False", "PortUnavailable")
    assert [each.name for each in made.proxies["default/edge"].listeners] == ["http"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"addresses": [{"type": "Hostname", "value": "a.example.com"}]}, "UnsupportedAddress"),
    ],
)
def test_what_cannot_be_had_is_refused(spec: dict[str, Any], reason: str) -> None:
    made = compiler(edge(**spec))
    assert not made.proxies and said(status(made).conditions)["Accepted"] == ("False", reason)


def test_kinds_that_a_listener_does_not_carry() -> None:
    def kinds(*names: str) -> dict[str, Any]:
        return {"allowedRoutes": {"kinds": [{"group": GROUP, "kind": name} for name in names]}}

    made = compiler(
        edge(listener("none", **kinds("MyRoute")), listener("some", 81, **kinds("MyRoute", "HTTPRoute")))
    )
    for each in status(made).listeners:
        assert said(each.conditions)["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert [each.kinds for each in status(made).listeners] == [(), ("HTTPRoute",)]


def test_a_class_is_ours_by_its_controller() -> None:
    assert compiler(edge(of_class="istio")).proxies["default/edge"].identity.service_account == "edge-istio"
    foreign = gateway_class("istio", "istio.io/gateway-controller")
    made = compiler(edge(of_class="istio"), foreign, to_edge(RULE), WEB)
    assert not made.proxies and "Gateway default/edge" not in made.statuses
    assert made.statuses["HTTPRoute default/route"].parents == ()  # type: ignore[union-attr]
    made = compiler(edge(of_class="mine"), gateway_class("mine", "ambit.io/gateway-controller"))
    of_class = made.statuses["GatewayClass mine"]
    assert isinstance(of_class, ObjectStatus) and of_class.features == supported(Place.GATEWAY)
    assert made.proxies
    found = made.statuses["GatewayClass mine"]
    assert isinstance(found, ObjectStatus) and said(found.conditions) == {"Accepted": ("True", "Accepted")}


def test_routes_are_attached_and_counted() -> None:
    made = compiler(
        edge(listener(), listener("second", 81, hostname="*.example.com")),
        WEB,
        to_edge(RULE),
        to_edge(RULE, name="other", hostnames=["nobody.test"], parents=({"sectionName": "second"},)),
        to_edge({"backendRefs": [to("nowhere")]}, name="lost", parents=({"sectionName": "http"},)),
    )
    assert [each.attached for each in status(made).listeners] == [2, 1]
    assert route_said(made) == [("True", "Accepted")]
    assert route_said(made, "default/other") == [("False", "NoMatchingListenerHostname")]
    table = made.listener_routes["default/edge#second"]
    assert [host.domains for host in table.hosts] == [("*.example.com",)]


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ({"sectionName": "other"}, "NoMatchingParent"),
        ({"port": 81}, "NoMatchingParent"),
        ({"sectionName": "http", "port": 8080}, "NoMatchingParent"),
        ({"sectionName": "http", "port": 80}, "Accepted"),
    ],
)
def test_a_parent_is_a_listener_by_section_and_port(parent: dict[str, Any], reason: str) -> None:
    made = compiler(edge(listener(), listener("b", 8080)), WEB, to_edge(RULE, parents=(parent,)))
    assert [each for _, each in route_said(made)] == [reason]


@pytest.mark.parametrize(
    ("allowed", "accepted"),
    [
        ({"from": "Same"}, False),
        ({"from": "All"}, True),
        ({"from": "None"}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "b"}}}, False),
    ],
)
def test_a_listener_says_which_namespaces_it_takes_routes_of(allowed: dict[str, Any], accepted: bool) -> None:
    front = edge(listener(allowedRoutes={"namespaces": allowed}), namespace="front")
    made = compiler(front, WEB, namespace("default", team="a"), to_edge(RULE, parents=FRONT))
    expected = ("True", "Accepted") if accepted else ("False", "NotAllowedByListeners")
    assert route_said(made) == [expected]
    assert [each.attached for each in status(made, "front/edge").listeners] == [int(accepted)]


def test_parents_are_judged_one_by_one() -> None:
    parents = ({"sectionName": "http"}, {"sectionName": "gone"})
    made = compiler(edge(), WEB, to_edge(RULE, parents=parents))
    assert route_said(made) == [("True", "Accepted"), ("False", "NoMatchingParent")]


def test_listeners_in_each_others_way() -> None:
    made = compiler(edge(listener(), listener("again"), listener("narrow", hostname="a.b")))
    found = listeners(made)
    assert found["http"]["Conflicted"] == found["narrow"]["Conflicted"] == ("False", "NoConflicts")
    assert found["again"]["Conflicted"] == ("True", "HostnameConflict")
    assert found["again"]["Accepted"] == ("False", "HostnameConflict")


def test_names_of_objects_fit_whatever_the_gateways_name_is() -> None:
    assert objects_name("front", "ambit") == "front-ambit"
    names = [objects_name(each, "ambit") for each in ("a" * 253, "a" * 252, "9lives", "a.b", "a-b")]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) <= 63 and name[0].isalpha() and "." not in name
    assert label_value("front") == "front" and len(label_value("a" * 253)) == 63


def shown(made: MeshCompiler) -> tuple[str, str]:
    """`ResolvedRefs` of the only listener."""
    (found,) = listeners(made).values()
    assert found["Accepted"] == ("True", "Accepted")
    return found["ResolvedRefs"]


def test_a_listener_shows_the_certificate_that_it_names() -> None:
    made = compiler(edge(https("https", "a")), secret("a", PAIR))
    assert shown(made) == ("True", "ResolvedRefs")
    (listener,) = made.proxies["default/edge"].listeners
    assert (listener.protocol, listener.certificates) == (Protocol.HTTPS, ("default/a",))
    (pair,) = made.certificates["default/edge"].pairs
    assert (pair.name, pair.chain, pair.key) == ("default/a", PAIR.chain, PAIR.key)
    assert PAIR.key not in repr(made.certificates) and PAIR.key not in str(made.proxies)


def test_a_listener_without_a_usable_certificate_is_not_served() -> None:
    other = Authority().pair("b")
    weak = Authority().pair("c", key=rsa.generate_private_key(65537, 1024))
    curve = Authority().pair("c", key=ec.generate_private_key(ec.SECP256K1()))
    large = Authority().pair("c", key=rsa.generate_private_key(65537, 4104))
    for given in (
        secret("b", PAIR),
        secret("a", Pair("no PEM", PAIR.key)),
        secret("a", Pair(PAIR.chain, "no PEM")),
        secret("a", Pair(PAIR.chain, other.key)),
        secret("a", Pair(PAIR.chain, "")),
        secret("a", weak),
        secret("a", curve),
        secret("a", large),
        secret("a", Pair(PAIR.chain * 200, PAIR.key)),
    ):
        labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
        ready = pod("e-1", "10.244.1.9", labels=labels)
        made = compiler(
            edge(https("https", "a")), given, WEB, to_edge(RULE), load_balancer({"ip": "192.0.2.1"}), ready
        )
        assert shown(made) == ("False", "InvalidCertificateRef")
        assert said(status(made).conditions)["Programmed"] == ("False", "Invalid"), "it serves nothing"
        assert made.proxies["default/edge"].listeners == () and not made.certificates
        (found,) = status(made).listeners
        assert said(found.conditions)["Programmed"] == ("False", "Invalid") and found.attached == 1


@pytest.mark.parametrize("reference", [{"group": "wrong"}, {"kind": "WrongKind"}])
def test_certificates_are_in_secrets(reference: dict[str, str]) -> None:
    given = https("https", "a")
    given["tls"]["certificateRefs"][0] |= reference
    assert shown(compiler(edge(given), secret("a", PAIR))) == ("False", "InvalidCertificateRef")


def test_a_certificate_of_another_namespace_needs_a_grant() -> None:
    objects = (edge(https("https", "shared/a")), secret("a", PAIR, namespace="shared"))
    assert shown(compiler(*objects)) == ("False", "RefNotPermitted")
    granted = {"kind": "Gateway", "to_kind": "Secret"}
    for given, permitted in (
        (grant("shared", "default", **granted), True),
        (grant("shared", "default", name="a", **granted), True),
        (grant("shared", "default", name="b", **granted), False),
        (grant("shared", "elsewhere", **granted), False),
        (grant("shared", "default", kind="HTTPRoute", to_kind="Secret"), False),
        (grant("elsewhere", "default", **granted), False),
    ):
        assert (shown(compiler(*objects, given))[0] == "True") is permitted
    made = compiler(*objects, grant("shared", "default", **granted))
    removed = msgspec.structs.replace(change(grant("shared", "default")), value=None)
    made.apply([removed])
    assert shown(made) == ("False", "RefNotPermitted") and not made.certificates


def test_one_port_speaks_one_language() -> None:
    made = compiler(edge(listener(port=443), https("https", "a")), secret("a", PAIR))
    assert listeners(made)["https"]["Conflicted"] == ("True", "ProtocolConflict")
    assert listeners(made)["http"]["Conflicted"] == ("False", "NoConflicts")


def test_listeners_of_bytes_take_their_own_kinds_of_routes() -> None:
    modes = {"pass": {"mode": "Passthrough"}, "end": https("x", "a")["tls"]}
    made = compiler(
        edge(
            *(listener(name, 443, "TLS", hostname=f"{name}.a", tls=tls) for name, tls in modes.items()),
            listener("tcp", 9000, "TCP", allowedRoutes={"kinds": [{"kind": "HTTPRoute"}]}),
        ),
        secret("a", PAIR),
        WEB,
        to_edge(RULE),
    )
    kinds = [each.kinds for each in status(made).listeners]
    assert kinds == [("TLSRoute",), ("TLSRoute", "TCPRoute"), ()]
    assert [each.certificates for each in made.proxies["default/edge"].listeners] == [(), ("default/a",), ()]
    assert listeners(made)["tcp"]["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert route_said(made) == [("False", "NotAllowedByListeners")]


@pytest.mark.parametrize("names", [(), ("a.example.com",)])
def test_a_tls_route_on_a_tcp_listener_is_refused_with_what_it_takes(names: tuple[str, ...]) -> None:
    tls_route = to_edge(RULE, kind="tlsroutes", hostnames=list(names))
    made = compiler(edge(listener("db", 5432, "TCP")), WEB, tls_route)
    found = made.statuses["TLSRoute default/route"]
    assert isinstance(found, RouteStatus)
    (accepted,) = (each for each in found.parents[0].conditions if each.type == "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "NotAllowedByListeners")
    text = "no listener of Gateway default/edge takes a TLSRoute: db (TCP) takes TCPRoute"
    assert accepted.message == text
    (finding,) = made.findings
    assert (finding.code, str(finding.origin)) == ("AMB0401", "TLSRoute default/route")
    streams = [each for table in made.listener_routes.values() for each in table.streams]
    assert not any(each.backends for each in streams)


def test_tls_that_is_passed_through_takes_no_tcp_routes() -> None:
    kinds = {"kinds": [{"kind": "TCPRoute"}, {"kind": "TLSRoute"}]}
    tls = {"mode": "Passthrough"}
    made = compiler(edge(listener("pass", 443, "TLS", tls=tls, allowedRoutes=kinds)))
    (found,) = status(made).listeners
    (said,) = (each for each in found.conditions if each.type == "ResolvedRefs")
    assert (found.kinds, said.reason) == (("TLSRoute",), "InvalidRouteKinds")
    assert said.message == "allowedRoutes.kinds: TLS of mode Passthrough carries no TCPRoute"


def test_requests_and_other_tls_share_a_port_and_tcp_does_not() -> None:
    passed = listener("pass", 443, "TLS", tls={"mode": "Passthrough"}, hostname="b")
    made = compiler(
        edge(https("https", "a", hostname="a"), passed, listener("tcp", 443, "TCP")), secret("a", PAIR)
    )
    found = {name: each["Conflicted"] for name, each in listeners(made).items()}
    assert found["https"] == found["pass"] == ("False", "NoConflicts")
    assert found["tcp"] == ("True", "ProtocolConflict")
    same = {**passed, "hostname": "a"}
    made = compiler(edge(https("https", "a", hostname="a"), same), secret("a", PAIR))
    assert listeners(made)["pass"]["Conflicted"] == ("True", "HostnameConflict")
