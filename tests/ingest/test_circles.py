"""Routes of gateways that lead in a circle are told of."""

from typing import Any

import pytest

from ambit.ingest.mesh import MeshCompiler
from tests.ingest.build import Given, endpoint_slice, pod, service, udp_service
from tests.ingest.gateway.build import edge, listener, route, to, waypoint
from tests.ingest.test_mesh import change, compiler

LISTENERS = (listener("http", 80), listener("tcp", 90, "TCP"), listener("udp", 53, "UDP"))


def gateway(name: str, ip: str) -> list[Given]:
    """With a pod, its Service, and a Service of UDP."""
    labels = {"gateway.networking.k8s.io/gateway-name": name}
    account = f"{name}-ambit"
    ports: list[dict[str, Any]] = [
        {"name": kind, "port": port, "targetPort": target, "protocol": "TCP"}
        for kind, port, target in (("http", 8080, 80), ("tcp", 9090, 90))
    ]
    return [
        edge(*LISTENERS, name=name),
        pod(f"{name}-1", ip, labels=labels, redirected=False, serviceAccountName=account),
        service(account, labels, ports=ports),
        *udp_service(f"{name}-udp", (ip, 53)),
    ]


GATEWAYS = [*gateway("a", "10.0.0.1"), *gateway("b", "10.0.0.2")]
WEB = [pod("web", "10.0.0.9"), service("web", {"app": "web"})]


def leads(
    start: str, section: str, *backends: dict[str, Any], kind: str = "httproutes", **rule: Any
) -> Given:
    parents = ({"name": start, "sectionName": section},)
    return route({"backendRefs": list(backends), **rule}, name=f"of-{start}", parents=parents, kind=kind)


def told(made: MeshCompiler) -> dict[str, str]:
    found = {str(each.origin): each.text for each in made.findings if each.code == "AMB0412"}
    return {origin: text.partition("circle: ")[2].partition(";")[0] for origin, text in found.items()}


def test_a_gateway_that_leads_to_itself() -> None:
    made = compiler(*GATEWAYS, *WEB, leads("a", "http", to("web"), to("a-ambit", 8080)))
    assert told(made) == {"HTTPRoute default/of-a": "default/a:80 -> default/a:80"}
    made.apply([change(leads("a", "http", to("web")))])
    assert told(made) == {}


@pytest.mark.parametrize(
    ("section", "kind", "backend", "port"),
    [
        ("http", "httproutes", to("b-ambit", 8080), 80),
        ("tcp", "tcproutes", to("b-ambit", 9090), 90),
        ("udp", "udproutes", to("b-udp", 53), 53),
    ],
)
def test_each_route_of_a_circle_is_told(section: str, kind: str, backend: dict[str, Any], port: int) -> None:
    there = leads("a", section, backend, kind=kind)
    back = leads("b", section, {**backend, "name": backend["name"].replace("b", "a", 1)}, kind=kind)
    made = compiler(*GATEWAYS, there, back)
    named = {"httproutes": "HTTPRoute", "tcproutes": "TCPRoute", "udproutes": "UDPRoute"}[kind]
    assert told(made) == {
        f"{named} default/of-a": f"default/a:{port} -> default/b:{port} -> default/a:{port}",
        f"{named} default/of-b": f"default/b:{port} -> default/a:{port} -> default/b:{port}",
    }
    made.apply([change(leads("b", section, kind=kind))])
    assert told(made) == {}


@pytest.mark.parametrize(
    "filters",
    [
        {"type": "RequestMirror", "requestMirror": {"backendRef": to("a-ambit", 8080)}},
        {
            "type": "ExternalAuth",
            "externalAuth": {"protocol": "HTTP", "backendRef": to("a-ambit", 8080), "http": {}},
        },
    ],
    ids=lambda each: str(each["type"]),
)
def test_copies_and_questions_lead_there_too(filters: dict[str, Any]) -> None:
    made = compiler(*GATEWAYS, *WEB, leads("a", "http", to("web"), filters=[filters]))
    assert told(made) == {"HTTPRoute default/of-a": "default/a:80 -> default/a:80"}


def test_it_may_lead_through_a_waypoint() -> None:
    (kind, web), *pods = service("web", {"app": "web"}), pod("web", "10.0.0.9")
    labels = {"istio.io/use-waypoint": "waypoint", "istio.io/ingress-use-waypoint": "true"}
    bound = kind, {**web, "metadata": {**web["metadata"], "labels": labels}}
    back = route({"backendRefs": [to("a-ambit", 8080)]})
    made = compiler(*GATEWAYS, *pods, bound, waypoint(), back, leads("a", "http", to("web")))
    assert told(made) == {"HTTPRoute default/of-a": "default/a:80 -> default/a:80"}


def test_what_leads_on_is_no_circle() -> None:
    """To another gateway, or to another port of the same one."""
    made = compiler(*GATEWAYS, *WEB, leads("a", "http", to("b-ambit", 8080)), leads("b", "http", to("web")))
    assert told(made) == {}
    other = compiler(*GATEWAYS, leads("a", "http", to("a-ambit", 9090)))
    assert told(other) == {}


def test_the_gateways_pods_may_come_later() -> None:
    without = [each for each in GATEWAYS if each[0] != "pods"]
    made = compiler(*without, leads("a", "http", to("a-ambit", 8080)))
    assert told(made) == {}
    made.apply([change(each) for each in GATEWAYS if each[0] == "pods"])
    assert told(made) == {"HTTPRoute default/of-a": "default/a:80 -> default/a:80"}


def test_addresses_that_somebody_wrote_down_are_the_gateways() -> None:
    """An EndpointSlice, or a ServiceEntry, may name any."""
    written = [service("written", None), endpoint_slice("written", "10.0.0.1", 80)]
    made = compiler(*GATEWAYS, *written, leads("a", "http", to("written")))
    assert told(made) == {"HTTPRoute default/of-a": "default/a:80 -> default/a:80"}


def test_of_many_routes_only_those_that_change_are_looked_at() -> None:
    def on(start: str, number: int) -> Given:
        parents = ({"name": start, "sectionName": "http"},)
        return route({"backendRefs": [to("b-ambit", 8080)]}, name=f"{start}{number}", parents=parents)

    def looked_at() -> int:
        return sum(each.recomputations for each in made.statistics() if each.name == "circles of routes")

    made = compiler(*GATEWAYS, *(on(start, number) for start in ("a", "b") for number in range(20)))
    assert len(told(made)) == 20
    before = looked_at()
    made.apply([change(on("b", 20))])
    assert looked_at() == before + 1
    assert len(told(made)) == 21
