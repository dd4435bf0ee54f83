"""Why a pod gets an answer, step by step, and where the mesh and nameservers disagree."""

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from ambit.core.dns import Rcode, Record, Type, address_record, encode_reply, parse_query
from ambit.model.service import IpFamilies, Visibility
from ambit.model.workload import WorkloadStatus
from ambit.node.dns.answer import Client, Settings
from ambit.node.dns.explain import Explanation, Step, compare, explain, questions
from tests.node.dns.build import Names, service, workload

WEB = service("web.shop.svc.cluster.local", "10.96.0.20", namespace="shop", canonical=True)
HEADLESS = service("db.shop.svc.cluster.local", namespace="shop", canonical=True)
ONLY6 = service(
    "six.shop.svc.cluster.local", "fd00::6", namespace="shop", families=IpFamilies.IPV6_ONLY, canonical=True
)
OUTSIDE = service("api.example.com", "240.240.0.1", namespace="shop")
THEIRS = service("api.example.com", "240.240.0.2", namespace="other")
HIDDEN = service("own.example.com", "240.240.0.3", namespace="other", visibility=Visibility.NAMESPACE)
BARE = service("bare.example.com", namespace="shop")
WILD = service("*.wild.example", "240.240.0.4", namespace="shop")
STARTING = workload("db-0", HEADLESS, "10.244.1.7", status=WorkloadStatus.UNHEALTHY)
ALL = [WEB, HEADLESS, ONLY6, OUTSIDE, THEIRS, HIDDEN, BARE, WILD]
KNOWN = {
    "web.shop.svc.cluster.local": ("10.96.0.20",),
    "six.shop.svc.cluster.local": ("fd00::66",),
    "www.example.net": ("192.0.2.1", "2001:db8::1"),
}


class Pod:
    """Its nameservers know what `KNOWN` says, and one alias; `silent` ones say nothing."""

    def __init__(self, silent: bool = False, **settings: Any) -> None:
        self.client = Client("shop")
        self.settings = Settings(**settings)
        self.view = Names(ALL, [STARTING])
        self.silent = silent
        self.asked: list[bool] = []

    async def ask(self, data: bytes, over_tcp: bool = False) -> bytes | None:
        self.asked.append(over_tcp)
        if self.silent:
            return None
        query = parse_query(data)
        if query.name == "alias.shop.svc.cluster.local":
            alias = Record(query.name, 5, "api.example.com", Type.CNAME)
            return encode_reply(query, answers=[alias])
        found = [ip_address(text) for text in KNOWN.get(query.name, ())]
        version = 4 if query.type == Type.A else 6
        records = [address_record(query.name, 5, each) for each in found if each.version == version]
        rcode = Rcode.NOERROR if found else Rcode.NXDOMAIN
        return encode_reply(query, rcode, records, limit=65535 if over_tcp else 60)


def test_the_resolver_appends_search_domains_to_short_names() -> None:
    assert list(questions("a.b", ("x", "y"))) == [("a.b.x", "x"), ("a.b.y", "y"), ("a.b", "")]
    assert list(questions("A.b.", ("x",))) == [("a.b", "")]
    assert [asked for asked, _ in questions("a.b.c.d.e.f", ("x",))] == ["a.b.c.d.e.f", "a.b.c.d.e.f.x"]


async def last(name: str, **pod: Any) -> tuple[Explanation, Step]:
    found = await explain(name, Pod(**pod), ("10.96.0.10",))
    return found, found.steps[-1]


async def test_a_short_name_is_found_with_its_search_domain() -> None:
    found, step = await last("web")
    assert len(found.steps) == 1
    assert (step.search, step.by, step.owner, step.host) == (
        "shop.svc.cluster.local",
        "mesh",
        "Service shop/web",
        "web.shop.svc.cluster.local",
    )
    assert found.addresses == step.addresses == ("10.96.0.20",)
    assert step.notes == ("no IPv6 address: the service has none",)
    assert step.nameserver is not None and step.nameserver.addresses == ("10.96.0.20",)


async def test_a_name_that_nobody_has_shows_every_question() -> None:
    found, _ = await last("nothing")
    assert [each.question for each in found.steps] == [
        "nothing.shop.svc.cluster.local",
        "nothing.svc.cluster.local",
        "nothing.cluster.local",
        "nothing",
    ]
    assert found.addresses == ()
    assert {(each.by, each.nameserver.rcode if each.nameserver else "") for each in found.steps} == {
        ("nameserver", "NXDOMAIN")
    }
    _, silent = await last("nothing.", silent=True)
    assert (silent.by, silent.nameserver and silent.nameserver.rcode) == ("nobody", "")


@pytest.mark.parametrize(
    ("name", "owner", "host", "addresses", "notes"),
    [
        (
            "api.example.com.",
            "ServiceEntry shop/api",
            "api.example.com",
            ("240.240.0.1",),
            (
                "no IPv6 address: the service has none",
                "ServiceEntry other/api (api.example.com) has the name too, and comes behind",
            ),
        ),
        ("x.wild.example.", "ServiceEntry shop/*", "*.wild.example", ("240.240.0.4",), None),
        (
            "db.shop.svc.cluster.local.",
            "Service shop/db",
            "db.shop.svc.cluster.local",
            (),
            (
                "no IPv4 address: it is headless and of its endpoints (1) none is ready",
                "no IPv6 address: it is headless and of its endpoints (1) none is ready",
            ),
        ),
        (
            "six.shop.svc.cluster.local.",
            "Service shop/six",
            "six.shop.svc.cluster.local",
            ("fd00::6",),
            ("no IPv4 address: the service is IPv6 only",),
        ),
        (
            "own.example.com.",
            "",
            "",
            (),
            ("ServiceEntry other/own (own.example.com) is exported to its own namespace only",),
        ),
        ("bare.example.com.", "", "", (), ("ServiceEntry shop/bare (bare.example.com) has no address",)),
        ("www.example.net.", "", "", ("192.0.2.1", "2001:db8::1"), ()),
    ],
)
async def test_who_owns_a_name_and_why_there_is_no_address(
    name: str, owner: str, host: str, addresses: tuple[str, ...], notes: tuple[str, ...] | None
) -> None:
    _, step = await last(name)
    assert (step.owner, step.host, step.addresses) == (owner, host, addresses)
    assert notes is None or step.notes == notes


async def test_an_alias_of_the_nameservers_is_followed() -> None:
    _, step = await last("alias.shop.svc.cluster.local.")
    assert (step.by, step.owner, step.host) == ("nameserver", "ServiceEntry shop/api", "api.example.com")
    assert step.addresses == ("240.240.0.1",)


async def test_without_ipv6_that_is_the_reason() -> None:
    _, step = await last("six.shop.svc.cluster.local.", ipv6=False)
    assert "no IPv6 address: IPv6 is off" in step.notes


async def test_a_truncated_reply_is_asked_for_again_over_tcp() -> None:
    pod = Pod()
    found = await explain("www.example.net.", pod, ())
    assert found.addresses == ("192.0.2.1", "2001:db8::1")
    assert True in pod.asked


async def test_where_mesh_and_nameservers_disagree() -> None:
    found = await compare(Pod(), ALL)
    assert {each.name: each.verdict for each in found} == {
        "api.example.com": "only the mesh",
        "db.shop.svc.cluster.local": "agree",
        "six.shop.svc.cluster.local": "differ",
        "web.shop.svc.cluster.local": "agree",
    }
    assert [each.name for each in found] == sorted(each.name for each in found)
    assert msgspec.json.encode(found)
