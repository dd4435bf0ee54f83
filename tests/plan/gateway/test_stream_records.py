"""What a gateway tells of connections in which nobody reads requests."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from ambit.agent import connection_metrics
from ambit.agent.record import Flow, Reporter
from tests.ingest.build import Given, authorization_policy
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener
from tests.plan.dataplane.network import REFUSED
from tests.plan.dataplane.served import until
from tests.plan.gateway.conftest import IDENTITY, Edge
from tests.plan.gateway.test_streams import (
    PLAIN,
    SERVERS,
    passthrough,
    say,
    servers,
    services,
    tcp_route,
    tls_route,
)

pytestmark = [pytest.mark.envoy, pytest.mark.netns]
__all__ = ["servers"]

SERVICE = "default/one-tcp.default.svc.cluster.local"


def policy(action: str, *rules: dict[str, Any], name: str = "p", **more: Any) -> Given:
    return authorization_policy(name, action=action, rules=list(rules), **more)


def told(edge: Edge, ask: Callable[[], object]) -> Flow:
    """The record of the one connection that `ask` makes."""
    began = time.time() - 0.001
    ask()
    found: list[Flow] = []

    def came() -> bool:
        with edge.lock:
            found[:] = [each for each in edge.requests.newest() if each.request is None and each.time > began]
        return bool(found)

    until(came, "record of a connection")
    (one,) = found
    return one


def counted(edge: Edge, metric: str) -> int:
    with edge.lock:
        lines = list(connection_metrics.render(edge.requests.connections.series))
    ours = [each for each in lines if each.startswith(f"{metric}{{") and 'reporter="source"' in each]
    return sum(int(each.rpartition(" ")[2]) for each in ours)


def of_tcp(edge: Edge, *policies: Given) -> Flow:
    edge.apply(*services(), gateway(listener("tcp", PLAIN, "TCP")), tcp_route("one-tcp"), *policies)
    return told(edge, lambda: edge.client.ask(edge.host.four, PLAIN))


def test_a_connection_and_what_it_is_counted_under(edge: Edge) -> None:
    before = [counted(edge, f"istio_tcp_{each}_total") for each in ("connections_opened", "received_bytes")]
    flow = of_tcp(edge)
    assert (flow.reporter, flow.hop, flow.proxy) == (Reporter.GATEWAY, "direct", "default/edge")
    assert (flow.decision, flow.policy, flow.error, flow.dry_run) == ("allow", "", "", "")
    assert flow.source.address.rpartition(":")[0] == str(edge.client.four)
    assert flow.destination.address == f"{edge.servers['one'].four}:{PLAIN}"
    assert (flow.destination.service, flow.received, flow.sent) == (SERVICE, 2, 6)
    after = [counted(edge, f"istio_tcp_{each}_total") for each in ("connections_opened", "received_bytes")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 2]
    with edge.lock:
        lines = list(connection_metrics.render(edge.requests.connections.series))
    assert any(f'source_principal="{IDENTITY.uri}"' in each for each in lines)


def test_records_name_the_rule_that_decided(edge: Edge) -> None:
    mine = {"from": [{"source": {"ipBlocks": [f"{edge.client.four}/32"]}}]}
    others = {"from": [{"source": {"ipBlocks": ["203.0.113.0/24"]}}]}
    for given, decision, rule in (
        (policy("DENY", others, mine), "deny", "default/p[1]"),
        (policy("ALLOW", others), "deny", "default/p"),
        (policy("ALLOW", others, mine), "allow", "default/p[1]"),
    ):
        flow = of_tcp(edge, given)
        assert (flow.decision, flow.policy, flow.error) == (decision, rule, ""), given
        hop = "refused" if decision == "deny" else "direct"
        assert (flow.hop, flow.destination.address.rpartition(":")[2]) == (hop, str(PLAIN))
    failed = counted(edge, "istio_tcp_connections_failed_total")
    of_tcp(edge, policy("DENY", mine))
    assert counted(edge, "istio_tcp_connections_failed_total") == failed + 1


def test_a_dry_run_is_told_and_forbids_nothing(edge: Edge) -> None:
    flow = of_tcp(edge, policy("DENY", {}, annotations={"istio.io/dry-run": "true"}))
    assert (flow.decision, flow.policy, flow.dry_run) == ("allow", "", "default/p[0]")


def test_what_leads_nowhere_has_failed(edge: Edge) -> None:
    edge.apply(*services(), gateway(listener("tcp", PLAIN, "TCP")), tcp_route("nobody"))
    flow = told(edge, lambda: edge.client.ask(edge.host.four, PLAIN))
    assert (flow.decision, flow.hop, flow.error) == ("allow", "refused", "no healthy upstream")


def test_more_rules_than_are_named_deny_all_the_same(edge: Edge) -> None:
    def of(address: str) -> dict[str, Any]:
        return {"from": [{"source": {"ipBlocks": [address]}}]}

    others = [of(f"203.0.113.{number}") for number in range(70)]
    flow = of_tcp(edge, policy("DENY", *others, of(str(edge.client.four))))
    assert (flow.decision, flow.policy) == ("deny", "")


def test_connections_by_name(edge: Edge) -> None:
    def of_tls(*policies: Given) -> Flow:
        edge.apply(
            *services(),
            gateway(passthrough(hostname="*.example.com")),
            tls_route("one-tls", "a.example.com"),
            *policies,
        )
        return told(edge, lambda: answers.append(say(edge, "a.example.com", SERVERS)))

    answers: list[str] = []
    hello = {"when": [{"key": "connection.sni", "values": ["a.example.com"]}]}
    denied, allowed = of_tls(policy("DENY", hello)), of_tls(policy("ALLOW", hello))
    assert answers == [REFUSED, "one:hi"]
    assert [(each.decision, each.policy) for each in (denied, allowed)] == [
        ("deny", "default/p[0]"),
        ("allow", "default/p[0]"),
    ]
