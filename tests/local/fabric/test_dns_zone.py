"""The cluster's names: Kubernetes' DNS schema, by table, and with every name the zone itself gives."""

import dns.name
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.dns import Rcode, Srv, Type, encode_query, encode_reply, parse_query
from ambit.local.fabric.dns_zone import Reply, Zone
from ambit.local.fabric.services import EndpointPort, EndpointSlice, ServicePort
from tests.local.fabric.objects import GONE, endpoint, endpoint_slice, service

HTTP = ServicePort(80, "http")
SERVICES = [
    service("web", "10.96.0.20", "fd00:10:96::20", ports=(HTTP, ServicePort(9000, "metrics"))),
    service("db", "None", ports=(ServicePort(5432, "sql"),)),
    service("eager", "None", ports=(HTTP,), publish_not_ready_addresses=True),
    service("nobody", "None", ports=(HTTP,)),
    service("outside", type="ExternalName", external_name="www.example.com"),
    service("inside", type="ExternalName", external_name="web.default.svc.cluster.local"),
]
SLICES = {
    ("default", "db"): (
        endpoint_slice(
            "db",
            endpoint("10.244.1.7", hostname="db-0"),
            endpoint("10.244.1.8"),
            endpoint("10.244.1.9", GONE, hostname="db-2"),
            ports=(EndpointPort("sql", 15432),),
        ),
        endpoint_slice(
            "db",
            endpoint("fd00:10:244:1::7", hostname="db-0"),
            family="IPv6",
            ports=(EndpointPort("sql", 15432),),
        ),
    ),
    ("default", "eager"): (endpoint_slice("eager", endpoint("10.244.1.10", GONE)),),
}
ZONE = Zone(SERVICES, SLICES)


def ask(name: str, kind: int = Type.A) -> Reply | None:
    return ZONE.answer(parse_query(encode_query(name, kind)))


def data(reply: Reply | None) -> list[str]:
    assert reply is not None
    assert reply.rcode == Rcode.NOERROR
    found = []
    for record in reply.answers:
        if isinstance(record.data, Srv):
            found.append(f"{record.data.port} {record.data.target}")
        else:
            found.append(str(record.data))
    return found


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.default.svc", Type.A, ["10.96.0.20"]),
        ("web.default.svc", Type.AAAA, ["fd00:10:96::20"]),
        ("web.default.svc", Type.ANY, ["10.96.0.20", "fd00:10:96::20"]),
        ("web.default.svc", 16, []),
        (
            "web.default.svc",
            Type.SRV,
            ["80 web.default.svc.cluster.local", "9000 web.default.svc.cluster.local"],
        ),
        ("_http._tcp.web.default.svc", Type.SRV, ["80 web.default.svc.cluster.local"]),
        ("_http._tcp.web.default.svc", Type.A, []),
        ("db.default.svc", Type.A, ["10.244.1.7", "10.244.1.8"]),
        ("db.default.svc", Type.AAAA, ["fd00:10:244:1::7"]),
        ("db-0.db.default.svc", Type.A, ["10.244.1.7"]),
        ("db-0.db.default.svc", Type.AAAA, ["fd00:10:244:1::7"]),
        ("10-244-1-8.db.default.svc", Type.A, ["10.244.1.8"]),
        ("10-244-1-8.db.default.svc", Type.AAAA, []),
        (
            "_sql._tcp.db.default.svc",
            Type.SRV,
            ["15432 db-0.db.default.svc.cluster.local", "15432 10-244-1-8.db.default.svc.cluster.local"],
        ),
        ("eager.default.svc", Type.A, ["10.244.1.10"]),
        ("nobody.default.svc", Type.A, []),
        ("outside.default.svc", Type.A, ["www.example.com"]),
        ("outside.default.svc", Type.CNAME, ["www.example.com"]),
        ("inside.default.svc", Type.A, ["web.default.svc.cluster.local", "10.96.0.20"]),
        ("10-244-1-5.default.pod", Type.A, ["10.244.1.5"]),
        ("fd00-10-244-1--5.default.pod", Type.AAAA, ["fd00:10:244:1::5"]),
        ("default.svc", Type.A, []),
        ("svc", Type.A, []),
        ("pod", Type.A, []),
    ],
)
def test_names(name: str, kind: int, expected: list[str]) -> None:
    reply = ask(f"{name}.cluster.local", kind)
    assert data(reply) == expected
    assert reply is not None
    assert bool(reply.authorities) is not bool(expected)


@pytest.mark.parametrize(
    "name",
    [
        "unknown.default.svc",
        "web.unknown.svc",
        "unknown.svc",
        "x.web.default.svc",
        "db-2.db.default.svc",
        "_http._udp.web.default.svc",
        "_none._tcp.web.default.svc",
        "a.b.c.web.default.svc",
        "x.outside.default.svc",
        "text.default.pod",
        "10-244-1-5.unknown.pod",
        "other",
    ],
)
def test_names_that_do_not_exist(name: str) -> None:
    reply = ask(f"{name}.cluster.local")
    assert reply is not None
    assert reply.rcode == Rcode.NXDOMAIN
    assert reply.authorities[0].type == Type.SOA


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.96.0.20", "web.default.svc.cluster.local"),
        ("fd00:10:96::20", "web.default.svc.cluster.local"),
        ("10.244.1.7", "db-0.db.default.svc.cluster.local"),
        ("fd00:10:244:1::7", "db-0.db.default.svc.cluster.local"),
        ("10.244.1.8", None),
        ("192.0.2.1", None),
    ],
)
def test_reverse_names(address: str, expected: str | None) -> None:
    name = str(dns.reversename.from_address(address)).rstrip(".").lower()
    reply = ask(name, Type.PTR)
    assert (data(reply) if reply else None) == ([expected] if expected else None)


@pytest.mark.parametrize(
    "name", ["www.example.com", "cluster.local.example", "in-addr.arpa", "x.ip6.arpa", "local"]
)
def test_other_zones_are_not_ours(name: str) -> None:
    assert ask(name) is None


def test_the_zone_names_its_authority() -> None:
    reply = ask("cluster.local", Type.SOA)
    assert reply is not None
    assert reply.answers[0].type == Type.SOA


parts = st.sampled_from(
    [
        "_http",
        "_tcp",
        "web",
        "db",
        "db-0",
        "outside",
        "default",
        "svc",
        "pod",
        "10-244-1-8",
        "",
        "x",
        "inside",
    ]
)


@given(st.lists(parts.filter(bool), max_size=7), st.sampled_from([*Type, 16, 0, 65]))
def test_every_question_has_a_reply_that_can_be_written(labels: list[str], kind: int) -> None:
    query = parse_query(encode_query(".".join([*labels, "cluster", "local"]), kind))
    reply = ZONE.answer(query)
    assert reply is not None
    assert reply.rcode == Rcode.NOERROR or not reply.answers
    assert encode_reply(query, reply.rcode, reply.answers, additionals=reply.additionals)
    for record in reply.answers:
        if isinstance(record.data, Srv):
            assert ask(record.data.target, Type.ANY)
            assert data(ask(record.data.target, Type.ANY))


def test_slices_without_ports_or_endpoints_are_empty() -> None:
    empty = EndpointSlice(SLICES["default", "eager"][0].metadata)
    zone = Zone(SERVICES, {("default", "eager"): (empty,)})
    reply = zone.answer(parse_query(encode_query("_http._tcp.eager.default.svc.cluster.local", Type.SRV)))
    assert data(reply) == []
