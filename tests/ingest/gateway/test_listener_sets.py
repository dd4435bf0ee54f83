"""ListenerSets: whose listeners a Gateway takes, which go before others, and which routes are on them."""

from typing import Any

import pytest

from ambit.core.finding import Level
from ambit.ingest.gateway import compile_edge, key_pairs
from ambit.ingest.gateway.key_pairs import ReadSecret
from ambit.ingest.gateway.shares import MOST, TOO_MANY
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.status import GatewayStatus, ListenerSetStatus
from ambit.objects.kube import Secret
from tests.calls import calls
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import GROUP, edge, listener, namespace, to, to_edge
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.ingest.gateway.test_gateways import said
from tests.ingest.test_mesh import change, compiler

FROM_ALL = {"allowedListeners": {"namespaces": {"from": "All"}}}
WEB = service("web", {"app": "web"})
RULE = {"backendRefs": [to("web")]}


def listener_set(
    *listeners: dict[str, Any], name: str = "more", own: str = "default", made: str = "", **parent: str
) -> Given:
    metadata = {"name": name, "namespace": own, "generation": 3, "uid": "u"}
    return f"listenersets.{GROUP}", {
        "metadata": metadata | ({"creationTimestamp": made} if made else {}),
        "spec": {
            "parentRef": {"name": "edge", "namespace": "default", **parent},
            "listeners": list(listeners or (listener("extra", 81),)),
        },
    }


def status_of(made: MeshCompiler, name: str = "more", own: str = "default") -> ListenerSetStatus:
    found = made.statuses[f"ListenerSet {own}/{name}"]
    assert isinstance(found, ListenerSetStatus)
    return found


def taken(made: MeshCompiler) -> list[str]:
    return [each.name for each in made.proxies["default/edge"].listeners]


def attached_sets(made: MeshCompiler) -> int:
    found = made.statuses["Gateway default/edge"]
    assert isinstance(found, GatewayStatus)
    return found.sets


@pytest.mark.parametrize(
    ("allowed", "is_taken"),
    [
        ({}, False),
        ({"from": "None"}, False),
        ({"from": "Same"}, False),
        ({"from": "All"}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "b"}}}, False),
    ],
)
def test_a_gateway_takes_only_sets_that_it_allows(allowed: dict[str, Any], is_taken: bool) -> None:
    spec = {"allowedListeners": {"namespaces": allowed}} if allowed else {}
    theirs = namespace("theirs", team="a")
    made = compiler(edge(**spec), listener_set(own="theirs"), theirs)
    assert (taken(made), attached_sets(made)) == (
        (["http", "theirs/more/extra"], 1) if is_taken else (["http"], 0)
    )
    conditions = said(status_of(made, own="theirs").conditions)
    if is_taken:
        assert conditions["Accepted"] == ("True", "Accepted")
    else:
        assert conditions == {"Accepted": ("False", "NotAllowed"), "Programmed": ("False", "NotAllowed")}


def test_the_gateway_and_then_the_older_set_have_a_port() -> None:
    older = listener_set(
        listener("a", 80, hostname="a.example"),
        listener("b", 80, hostname="b.example"),
        made="2026-01-01T00:00:00Z",
    )
    younger = listener_set(
        listener("b", 80, hostname="b.example"), name="a-younger", made="2026-01-02T00:00:00Z"
    )
    made = compiler(edge(listener("own", 80, hostname="a.example"), **FROM_ALL), younger, older)
    assert taken(made) == ["own", "default/more/b"]
    assert said(status_of(made).conditions)["Accepted"] == ("True", "ListenersNotValid")
    assert said(status_of(made).listeners[0].conditions)["Conflicted"] == ("True", "HostnameConflict")
    assert said(status_of(made, "a-younger").conditions) == {
        "Accepted": ("False", "ListenersNotValid"),
        "Programmed": ("False", "ListenersNotValid"),
    }
    (refused,) = status_of(made, "a-younger").listeners
    assert said(refused.conditions)["Programmed"] == ("False", "HostnameConflict")
    assert attached_sets(made) == 1
    made.apply([change(listener_set(listener("a", 80, "TCP"), made="2026-01-01T00:00:00Z"))])
    assert taken(made) == ["own", "default/a-younger/b"]
    assert said(status_of(made).listeners[0].conditions)["Accepted"] == ("False", "ProtocolConflict")


def test_a_parent_means_its_own_listeners_alone() -> None:
    extra = listener("http", 81)
    made = compiler(
        WEB,
        edge(**FROM_ALL),
        listener_set(extra),
        to_edge(RULE, name="on-gateway"),
        to_edge(RULE, name="on-set", parents=({"kind": "ListenerSet", "name": "more"},)),
        to_edge(RULE, name="nowhere", parents=({"sectionName": "extra"},)),
    )
    routed = {
        table.listener: [entry.name for host in table.hosts for entry in host.entries]
        for table in made.listener_routes.values()
    }
    assert routed == {"http": ["default/on-gateway/0"], "default/more/http": ["default/on-set/0"]}
    assert status_of(made).listeners[0].attached == 1


@pytest.mark.parametrize("port", [15000, 15020, 15021])
def test_a_set_has_no_port_of_the_proxy_itself(port: int) -> None:
    made = compiler(edge(**FROM_ALL), listener_set(listener("own", port)))
    assert taken(made) == ["http"]
    assert said(status_of(made).listeners[0].conditions)["Accepted"] == ("False", "PortUnavailable")


def test_the_more_specific_host_of_a_set_goes_before_a_gateways_catch_all() -> None:
    """Gateway API `Listener.hostname`: the most specific one alone answers, whoever's it is."""
    made = compiler(edge(**FROM_ALL), listener_set(listener("shop", 80, hostname="shop.example")))
    assert taken(made) == ["http", "default/more/shop"]


def test_a_listener_lets_in_its_own_sets_namespace() -> None:
    """`Same` is the namespace of the set, not of the Gateway."""
    parent = {"kind": "ListenerSet", "name": "more", "namespace": "theirs"}
    made = compiler(
        WEB,
        edge(**FROM_ALL),
        listener_set(own="theirs"),
        to_edge(RULE, name="theirs", namespace="theirs", parents=(parent,)),
        to_edge(RULE, name="ours", parents=(parent,)),
    )
    assert status_of(made, own="theirs").listeners[0].attached == 1


def test_a_set_of_somebody_elses_gateway_is_left_alone() -> None:
    made = compiler(
        edge(of_class="foreign", **FROM_ALL), listener_set(), listener_set(name="other", kind="Mine")
    )
    assert not made.statuses


def beyond(made: MeshCompiler, name: str, own: str = "default") -> list[str]:
    found = status_of(made, name, own).listeners
    return [each.name for each in found if said(each.conditions)["Accepted"] == ("False", TOO_MANY)]


def of_many(count: int, name: str, own: str, made: str) -> list[Given]:
    """Sets with so many listeners, 64 in each."""
    return [
        listener_set(
            *(listener(f"l{i}", hostname=f"h{i}.{name}{first}.{own}") for i in range(min(64, count - first))),
            name=f"{name}{first}",
            own=own,
            made=made,
        )
        for first in range(0, count, 64)
    ]


def test_a_namespace_adds_so_many_listeners_and_no_more() -> None:
    """The older ones, then by name; what is beyond is in nobody's way."""
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    last = listener_set(
        listener("l0", hostname="a.example"),
        listener("l1", hostname="b.example"),
        listener("l2", hostname="c.example"),
        name="last",
        own="n",
        made=late,
    )
    modest = listener_set(
        listener("l", hostname="c.example"), name="z", own="other", made="2026-02-01T00:00:00Z"
    )
    full = of_many(MOST - 2, "full", "n", early)
    made = compiler(edge(**FROM_ALL), *full, last, modest)
    assert beyond(made, "last", "n") == ["l2"] and not beyond(made, "z", "other")
    assert taken(made)[-3:] == ["n/last/l0", "n/last/l1", "other/z/l"]
    assert len(taken(made)) == 1 + MOST + 1
    refused = status_of(made, "last", "n").listeners[2].conditions
    assert said(refused)["Conflicted"] == ("False", "NoConflicts")
    assert said(refused)["Programmed"] == ("False", "Invalid")
    assert said(status_of(made, "last", "n").conditions)["Accepted"] == ("True", "ListenersNotValid")
    (found,) = made.findings
    assert (found.code, found.level, found.path) == ("AMB0413", Level.ERROR, "spec.listeners[2]")
    assert found.text.startswith(f"namespace n has {MOST} of the {MOST} listeners")

    made.apply([Change(full[0][0], "n/full0")])
    assert not beyond(made, "last", "n") and {each.code for each in made.findings} == {"AMB0404"}
    assert said(status_of(made, "z", "other").listeners[0].conditions)["Conflicted"][0] == "True"


def test_findings_about_many_listeners_are_one() -> None:
    made = compiler(edge(**FROM_ALL), *of_many(MOST + 64 + 40, "s", "n", ""))
    found = [each.text[:30] for each in made.findings if each.code == "AMB0413"]
    assert sorted(found) == ["40 listeners are refused: name", "64 listeners are refused: name"]


def test_refused_listeners_take_no_share() -> None:
    """Conflicted ones, and those that nobody could have."""
    bad = [listener(f"c{i}", 80) for i in range(32)] + [listener(f"p{i}", 15000) for i in range(32)]
    made = compiler(
        edge(**FROM_ALL),
        listener_set(*bad, name="bad", own="n", made="2026-01-01T00:00:00Z"),
        *of_many(MOST, "full", "n", "2026-01-02T00:00:00Z"),
    )
    assert len(taken(made)) == 1 + MOST


def test_a_listener_counts_as_often_as_it_has_certificates() -> None:
    several = [*(f"s{i}" for i in range(64))]
    made = compiler(
        edge(**FROM_ALL),
        listener_set(
            *(https(f"l{i}", *several, hostname=f"h{i}.example") for i in range(MOST // 64 + 1)),
            listener("plain"),
            own="n",
        ),
    )
    assert beyond(made, "more", "n") == [f"l{MOST // 64}", "plain"]


def test_a_set_that_changes_leaves_routes_and_statuses_of_others_alone() -> None:
    """One namespace's changes must not have thousands of others' objects compiled."""

    def cost(others: int) -> int:
        named = [
            listener_set(listener("l", hostname=f"s{n}.example"), name="s", own=f"n{n}")
            for n in range(others)
        ]
        parents = [{"kind": "ListenerSet", "name": "s", "namespace": f"n{n}"} for n in range(others)]
        routes = [
            to_edge(RULE, name=f"r{n}", namespace=f"n{n}", parents=(each,)) for n, each in enumerate(parents)
        ]
        made = compiler(edge(**FROM_ALL), WEB, *named, *routes)
        one = change(listener_set(listener("l", hostname="other.example"), name="s", own="n0"))
        return calls(lambda: made.apply([one]))

    small, large = cost(10), cost(110)
    assert (large - small) / 100 < 350


def test_a_secret_is_read_once_however_many_listeners_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(given: Secret) -> ReadSecret:
        read.append(given.metadata.key)
        return key_pairs.read(given)

    monkeypatch.setattr(compile_edge, "read", counted)
    pair = Authority().pair("a.example")
    many = [https(f"l{i}", "s", hostname=f"h{i}.example") for i in range(64)]
    made = compiler(edge(**FROM_ALL), listener_set(*many), secret("s", pair), secret("unnamed", pair))
    assert read == ["default/s"] and len(taken(made)) == 65
    made.apply([change(listener_set(*many[:3]))])
    assert read == ["default/s"]
    made.apply([change(secret("s", Authority().pair("b.example")))])
    assert read == ["default/s"] * 2
    made.apply([change(edge(https("own", "unnamed"), **FROM_ALL))])
    assert read[2:] == ["default/unnamed"]


def test_many_listeners_cost_as_many_times_one() -> None:
    """Who may add listeners to a Gateway must not take the time of the control plane that everybody needs."""

    def parent(each: int) -> dict[str, str]:
        return {"kind": "ListenerSet", "name": f"s{each}", "namespace": f"n{each % 2}"}

    def cost(sets: int) -> int:
        named = [
            listener_set(
                *(listener(f"l{i}", hostname=f"h{i}.s{each}.example") for i in range(20)),
                name=f"s{each}",
                own=f"n{each % 2}",
            )
            for each in range(sets)
        ]
        routes = [
            to_edge(RULE, name=f"r{each}", namespace=f"n{each % 2}", parents=(parent(each),))
            for each in range(sets)
        ]
        given = [*map(change, (edge(**FROM_ALL), WEB, *named, *routes))]
        made = MeshCompiler(MeshSettings())
        found = calls(lambda: made.apply(given))
        assert len(taken(made)) == 1 + 20 * sets
        assert [each.attached for each in status_of(made, "s1", "n1").listeners] == [1] * 20
        return found

    few = cost(4)
    assert cost(40) < 15 * few
