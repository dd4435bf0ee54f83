"""`ambit dns`: explanations as people read them."""

from typing import Any

import pytest

from ambit.cli.commands.dns import why_lines

MESH = {
    "question": "web.shop.svc.cluster.local",
    "by": "mesh",
    "search": "shop.svc.cluster.local",
    "owner": "Service shop/web",
    "host": "web.shop.svc.cluster.local",
    "addresses": ["10.96.0.20"],
    "notes": ["no IPv6 address: the service has none"],
    "nameserver": {"rcode": "NOERROR", "addresses": ["10.96.0.20"]},
}


def found(*steps: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "web",
        "searches": ["shop.svc.cluster.local", "cluster.local"],
        "nameservers": ["10.96.0.10"],
        "steps": list(steps),
        "addresses": steps[-1].get("addresses", []),
    }


def test_a_name_of_the_mesh() -> None:
    assert list(why_lines(found(MESH), "shop/client")) == [
        "web from pod shop/client: 10.96.0.20",
        "nameservers 10.96.0.10, search domains shop.svc.cluster.local, cluster.local",
        "",
        "web.shop.svc.cluster.local (with search domain shop.svc.cluster.local): answered by the mesh",
        "  owner: Service shop/web, host web.shop.svc.cluster.local",
        "  addresses: 10.96.0.20",
        "  no IPv6 address: the service has none",
        "  the nameservers say: 10.96.0.20",
    ]


@pytest.mark.parametrize(
    ("by", "said", "line", "says"),
    [
        ("nameserver", {"rcode": "NXDOMAIN"}, "web: passed on to the nameservers", "NXDOMAIN"),
        ("nameserver", {"rcode": "NOERROR"}, "web: passed on to the nameservers", "no address"),
        (
            "nameserver",
            {"rcode": "NOERROR", "aliases": ["a.example"]},
            "web: passed on to the nameservers",
            "alias a.example",
        ),
        ("nobody", {"rcode": ""}, "web: passed on to the nameservers, and none answers", "nothing"),
    ],
)
def test_a_name_that_is_passed_on(by: str, said: dict[str, Any], line: str, says: str) -> None:
    lines = list(why_lines(found({"question": "web", "by": by, "nameserver": said}), "shop/client"))
    assert lines[0] == "web from pod shop/client: no address"
    assert lines[3:] == [line, "  addresses: none", f"  the nameservers say: {says}"]
