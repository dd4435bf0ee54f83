"""Which names the node answers, with what, and what it leaves to the pod's nameserver."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.dns import Rcode, Record, Soa, Type, encode_query, parse_query
from ambit.model.service import HealthPolicy, IpFamilies, LoadBalancing, Service, Visibility
from ambit.model.workload import WorkloadStatus
from ambit.node.dns.answer import NEGATIVE_TTL, Client, Resolution, Settings, answer, finish
from ambit.node.dns.names import candidates, expansions, wildcards
from tests.node.dns.build import Names, service, workload

WEB = service("web.default.svc.cluster.local", "10.96.0.20", "fd00:10:96::20")
OTHER = service("web.other.svc.cluster.local", "10.96.0.30", namespace="other")
OUTSIDE = service("www.example.com", "240.240.0.1", namespace="outside")
WILD = service("*.example.org", "240.240.0.2")
WILDER = service("*.org", "240.240.0.3")
RANGE = service("range.example.com", "10.1.0.0", prefix=16)
HEADLESS = service("db.default.svc.cluster.local")
ONLY4 = service(
    "four.default.svc.cluster.local", "10.96.0.40", "fd00:10:96::40", families=IpFamilies.IPV4_ONLY
)
ONLY6 = service(
    "six.default.svc.cluster.local", "10.96.0.60", "fd00:10:96::60", families=IpFamilies.IPV6_ONLY
)
HIDDEN = service("own.example.com", "240.240.0.8", namespace="other", visibility=Visibility.NAMESPACE)
FAR = service("far.default.svc.cluster.local", "10.96.0.70", network="elsewhere")
PODS = [
    workload("db-0", HEADLESS, "10.244.1.7", "fd00:10:244:1::7"),
    workload("db-1", HEADLESS, "10.244.2.7"),
    workload("db-2", HEADLESS, "10.244.2.8", status=WorkloadStatus.UNHEALTHY),
    workload("db-3", HEADLESS, "10.244.2.9", network="elsewhere"),
]
MESH = Names([WEB, OTHER, OUTSIDE, WILD, WILDER, RANGE, HEADLESS, ONLY4, ONLY6, FAR, HIDDEN], PODS)


def ask(name: str, kind: int = Type.A, namespace: str = "default", ipv6: bool = True) -> Resolution | None:
    query = parse_query(encode_query(name, kind))
    return answer(query, Client(namespace), MESH, Settings(ipv6=ipv6), random.Random(1).shuffle)


def lines(resolution: Resolution | None) -> set[str] | None:
    """Sorted "owner data" lines; None for a question that is forwarded."""
    if resolution is None:
        return None
    assert resolution.rcode == Rcode.NOERROR
    assert all(record.ttl == 30 for record in resolution.answers)
    return {f"{record.name} {record.data}" for record in resolution.answers}


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("web.default.svc.cluster.local", "default", {"web.default.svc.cluster.local 10.96.0.20"}),
        ("web", "default", {"web 10.96.0.20"}),
        ("web", "other", {"web 10.96.0.30"}),
        ("web", "third", None),
        ("web.other", "default", {"web.other 10.96.0.30"}),
        ("web.other.svc", "default", {"web.other.svc 10.96.0.30"}),
        (
            "web.default.svc.cluster.local.default.svc.cluster.local",
            "default",
            {
                "web.default.svc.cluster.local.default.svc.cluster.local web.default.svc.cluster.local",
                "web.default.svc.cluster.local 10.96.0.20",
            },
        ),
        ("www.example.com", "default", {"www.example.com 240.240.0.1"}),
        (
            "www.example.com.default.svc.cluster.local",
            "default",
            {
                "www.example.com.default.svc.cluster.local www.example.com",
                "www.example.com 240.240.0.1",
            },
        ),
        (
            "www.example.com.cluster.local",
            "default",
            {
                "www.example.com.cluster.local www.example.com",
                "www.example.com 240.240.0.1",
            },
        ),
        ("a.b.example.org", "default", {"a.b.example.org 240.240.0.2"}),
        ("a.org", "default", {"a.org 240.240.0.3"}),
        ("a.example.org.svc.cluster.local", "default", {"a.example.org.svc.cluster.local 240.240.0.2"}),
        ("example.org", "default", {"example.org 240.240.0.3"}),
        ("org", "default", None),
        ("own.example.com", "other", {"own.example.com 240.240.0.8"}),
        ("own.example.com", "default", None),
        ("range.example.com", "default", None),
        ("db", "default", {"db 10.244.1.7", "db 10.244.2.7"}),
        ("far", "default", set()),
        ("six", "default", set()),
        ("four", "default", {"four 10.96.0.40"}),
        ("db-0.db.default.svc.cluster.local", "default", None),
        ("unknown.default.svc.cluster.local", "default", None),
        ("WEB.Default.svc.cluster.local", "default", {"web.default.svc.cluster.local 10.96.0.20"}),
    ],
)
def test_names(name: str, namespace: str, expected: set[str] | None) -> None:
    assert lines(ask(name, namespace=namespace)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", {"web fd00:10:96::20"}),
        ("web.other", set()),
        ("four", set()),
        ("six", {"six fd00:10:96::60"}),
        ("db", {"db fd00:10:244:1::7"}),
    ],
)
def test_ipv6_and_families(name: str, expected: set[str]) -> None:
    assert lines(ask(name, Type.AAAA)) == expected
    assert not (lines(ask(name, Type.AAAA, ipv6=False)) or set())


@pytest.mark.parametrize("kind", [Type.SRV, Type.PTR, Type.CNAME, Type.ANY, 16, 65])
def test_other_types_are_forwarded(kind: int) -> None:
    assert ask("web", kind) is None


def test_other_operations_are_not_implemented() -> None:
    query = parse_query(b"\0\1\x28\0" + encode_query("web", Type.A)[4:])
    resolution = answer(query, Client("default"), MESH, Settings(), lambda _: None)
    assert resolution == Resolution(Rcode.NOTIMP)


def test_a_newer_edns_is_refused_as_such() -> None:
    query = msgspec.structs.replace(parse_query(encode_query("web", Type.A)), edns_version=1)
    assert answer(query, Client("default"), MESH, Settings(), lambda _: None) == Resolution(Rcode.BADVERS)


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("web.other.svc.cluster.local", "cluster.local"),
        ("web.other", "web.other"),
        ("www.example.com", "www.example.com"),
        ("a.b.example.org", "example.org"),
        ("www.example.com.default.svc.cluster.local", "www.example.com"),
    ],
)
def test_what_has_no_such_address_says_how_long_to_remember_that(name: str, zone: str) -> None:
    resolution = ask(name, Type.AAAA)
    assert resolution is not None
    assert resolution.rcode == Rcode.NOERROR
    assert not [record for record in resolution.answers if record.type != Type.CNAME]
    (authority,) = resolution.authorities
    assert isinstance(authority.data, Soa)
    assert (authority.name, authority.ttl, authority.data.minimum) == (zone, NEGATIVE_TTL, NEGATIVE_TTL)
    last = str(resolution.answers[-1].data) if resolution.answers else name
    assert f".{last}".endswith(f".{zone}"), "of a zone that the name is in"


def test_an_answer_needs_no_authority() -> None:
    resolution = ask("web")
    assert resolution is not None
    assert resolution.answers
    assert not resolution.authorities


def test_search_domains_are_the_pods_own() -> None:
    client = Client("default", searches=("corp.example",))
    for name, known in (("www.example.com.corp.example", True), ("www.example.com.cluster.local", False)):
        query = parse_query(encode_query(name, Type.A))
        resolution = answer(query, client, MESH, Settings(), lambda _: None)
        assert (resolution is not None) is known


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("www.example.com", {"240.240.0.1"}),
        ("x.example.org", {"240.240.0.2"}),
        ("web", None),
        ("nowhere.example", None),
        ("own.example.com", None),
    ],
)
def test_an_alias_of_a_nameserver_is_followed_into_the_mesh(end: str, expected: set[str] | None) -> None:
    chain = (
        Record("alias.default.svc.cluster.local", 5, "between.example", Type.CNAME),
        Record("between.example", 5, end, Type.CNAME),
    )
    query = parse_query(encode_query("alias.default.svc.cluster.local", Type.A))
    resolution = finish(query, chain, Client("default"), MESH, Settings(), lambda _: None)
    if expected is None:
        assert resolution is None
        return
    assert resolution is not None
    assert resolution.answers[:2] == chain
    assert {str(record.data) for record in resolution.answers[2:]} == expected
    assert {record.name for record in resolution.answers[2:]} == {end}


def test_endpoints_that_are_not_ready_are_named_when_the_service_publishes_them() -> None:
    balancing = LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)
    early = msgspec.structs.replace(HEADLESS, load_balancing=balancing)
    query = parse_query(encode_query("db", Type.A))
    resolution = answer(query, Client("default"), Names([early], PODS), Settings(), lambda _: None)
    assert resolution is not None
    found = {str(record.data) for record in resolution.answers}
    assert found == {"10.244.1.7", "10.244.2.7", "10.244.2.8"}


@given(st.permutations(range(4)))
def test_own_namespace_then_canonical_then_preferred_then_first(order: list[int]) -> None:
    host = "api.example.com"
    ranked = [
        service(host, "240.240.0.1", namespace="mine"),
        service(host, "240.240.0.2", namespace="zz", canonical=True),
        service(host, "240.240.0.3", namespace="preferred"),
        service(host, "240.240.0.4", namespace="aa"),
    ]
    settings = Settings(preferred_namespace="preferred")
    query = parse_query(encode_query(host, Type.A))
    for best in range(4):
        view = Names([ranked[index] for index in order if index >= best])
        resolution = answer(query, Client("mine"), view, settings, lambda _: None)
        assert resolution is not None
        assert resolution.service == ranked[best]


words = st.sampled_from(["a", "b", "default", "svc", "cluster", "local", "example", "org"])
names = st.lists(words, min_size=1, max_size=7).map(".".join)
hosts = st.one_of(names, names.map(lambda name: f"*.{name}"))


@given(names, st.sets(hosts, min_size=1, max_size=12), st.sampled_from(["default", "b"]))
def test_a_name_is_answered_by_the_first_rule_that_knows_it(
    asked: str, known: set[str], namespace: str
) -> None:
    """The oracle tries whole lists of names; the resolver must find the same service and alias."""
    view = Names([service(host, "240.240.0.9") for host in known])
    query = parse_query(encode_query(asked, Type.A))
    resolution = answer(query, Client(namespace), view, Settings(), lambda _: None)
    expected = _oracle(asked, known, namespace)
    if expected is None:
        assert resolution is None
        return
    host, alias = expected
    assert resolution is not None
    assert resolution.service is not None
    assert resolution.service.hostname == host
    aliases = [record.data for record in resolution.answers if record.type == Type.CNAME]
    assert aliases == ([alias] if alias else [])


def _oracle(asked: str, known: set[str], namespace: str) -> tuple[str, str | None] | None:
    domain = "cluster.local"
    roots: list[tuple[str, str | None]] = [(asked, None)]
    for search in (f"{namespace}.svc.{domain}", f"svc.{domain}", domain):
        if asked.endswith("." + search):
            stripped = asked[: -len(search) - 1]
            roots.append((stripped, stripped))
    found: list[tuple[str, str | None]] = []
    for root, alias in roots:
        parts = root.split(".")
        tries = [root]
        match len(parts), parts[-1]:
            case 1, _:
                tries += [f"{root}.{namespace}.svc.{domain}"]
            case 2, _:
                tries += [f"{root}.svc.{domain}", f"{root}.{namespace}.svc.{domain}"]
            case 3, "svc":
                tries += [f"{root}.{domain}", f"{root}.svc.{domain}"]
            case 3, _:
                tries += [f"{root}.svc.{domain}"]
            case 4, "svc":
                tries += [f"{root}.{domain}"]
        found += [(name, alias) for name in tries]
    exact = [each for each in found if each[0] in known]
    for name, alias in [each for each in exact if each[0].endswith(f".svc.{domain}")] + exact:
        return name, alias
    for name, _ in found:
        pieces = name.split(".")
        for start in range(1, len(pieces)):
            pattern = ".".join(["*", *pieces[start:]])
            of_cluster = pieces[-2:] == ["cluster", "local"]
            if pattern in known and (
                not of_cluster or pieces[start + 1 :][-3:] == ["svc", "cluster", "local"]
            ):
                return pattern, None
    return None


@pytest.mark.parametrize(
    "host", ["web.other", "web.other.svc", "web", "*.cluster.local", "*.local", "*.other", "*.svc"]
)
@pytest.mark.parametrize("asked", ["web.other", "web.other.svc", "web.other.svc.cluster.local"])
@pytest.mark.parametrize("namespace", ["third", "thief"])
def test_no_host_takes_the_name_of_a_service(host: str, asked: str, namespace: str) -> None:
    entry = service(host, "192.0.2.66", namespace="thief", canonical=True)
    for view in (Names([entry, OTHER]), Names([OTHER, entry])):
        query = parse_query(encode_query(asked, Type.A))
        resolution = answer(query, Client(namespace), view, Settings(), lambda _: None)
        assert resolution is not None
        assert resolution.service == OTHER


@given(st.permutations(["mine", "thief", "aaa"]), st.sampled_from(["mine", "thief", "third"]))
def test_a_service_goes_before_entries_with_its_host(others: list[str], namespace: str) -> None:
    name = "web.shop.svc.cluster.local"
    real = service(name, "10.96.0.9", namespace="shop", canonical=True)
    entries = [service(name, "192.0.2.66", namespace=each, canonical=True) for each in others]
    query = parse_query(encode_query(name, Type.A))
    resolution = answer(query, Client(namespace), Names([*entries, real]), Settings(), lambda _: None)
    assert resolution is not None
    assert resolution.service == real


def test_candidates_are_few() -> None:
    found = list(
        candidates("a.b.svc.cluster.local.default.svc.cluster.local", "default", "cluster.local", ())
    )
    assert len(found) == 1
    assert list(expansions("a.b.c.d.e", "default", "cluster.local")) == ["a.b.c.d.e"]
    assert list(wildcards("a.b.c")) == ["*.b.c", "*.c"]


def test_answers_are_shuffled() -> None:
    many: Service = service("many.default.svc.cluster.local", *(f"10.96.1.{last}" for last in range(1, 9)))
    query = parse_query(encode_query("many", Type.A))
    orders = set()
    generator = random.Random(3)
    for _ in range(20):
        resolution = answer(query, Client("default"), Names([many]), Settings(), generator.shuffle)
        assert resolution is not None
        orders.add(tuple(record.data for record in resolution.answers))
    assert len(orders) > 10
