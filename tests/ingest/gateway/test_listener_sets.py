"""ListenerSets: whose listeners a Gateway takes, which go before others, and which routes are on them."""

from typing import Any

import pytest

from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.status import GatewayStatus, ListenerSetStatus
from tests.calls import calls
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import GROUP, edge, listener, namespace, to, to_edge
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


def test_many_listeners_cost_as_many_times_one() -> None:
    """Who may add listeners to a Gateway must not take the time of the control plane that everybody needs."""

    def cost(sets: int) -> int:
        named = [
            listener_set(
                *(listener(f"l{i}", hostname=f"h{i}.s{each}.example") for i in range(20)), name=f"s{each}"
            )
            for each in range(sets)
        ]
        routes = [
            to_edge(RULE, name=f"r{each}", parents=({"kind": "ListenerSet", "name": f"s{each}"},))
            for each in range(sets)
        ]
        given = [*map(change, (edge(**FROM_ALL), WEB, *named, *routes))]
        made = MeshCompiler(MeshSettings())
        found = calls(lambda: made.apply(given))
        assert len(taken(made)) == 1 + 20 * sets
        assert [each.attached for each in status_of(made, "s1").listeners] == [1] * 20
        return found

    few = cost(4)
    assert cost(40) < 15 * few
