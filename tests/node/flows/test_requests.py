"""What a tunnel's request says, in records: the service that was asked for, the trace, and a peer's own words."""

import ipaddress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.agent.record import Flow
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.flows.collector import Collector
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from tests.node.flows.envoy_lines import STARTED, line, message

PEER = "spiffe://cluster.local/ns/far/sa/caller"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-00"
SERVER = Workload(
    uid="Kubernetes//Pod/default/server",
    name="server",
    namespace="default",
    identity=Identity("cluster.local", "default", "server"),
    addresses=(ipaddress.ip_address("10.0.0.2"),),
    tunnel=TunnelProtocol.HBONE,
    services={
        "default/a.default.svc.cluster.local": (Port(80, 8080),),
        "default/b.default.svc.cluster.local": (Port(80, 8080),),
    },
)
POD = LocalPod(
    "uid", "default", "server", "sandbox", SERVER.identity, SERVER.addresses, "/run/netns/x", SERVER
)
BAGGAGE = (
    "k8s.cluster.name=there,k8s.namespace.name=far,k8s.deployment.name=caller,service.name=shop,"
    "service.version=v3,cloud.region=r,cloud.availability_zone=z"
)


def taken(text: str | bytes) -> list[Flow]:
    collector = Collector(Snapshot([SERVER]), lambda: LocalPods([POD]), NodeSettings(node="n"))
    collector.take(message(text))
    return list(collector.newest())


def tunnel(traceparent: str = "-", forwarded: str = "-", baggage: str = "-", identity: str = PEER) -> str:
    return line(
        names.LOG_INBOUND,
        "10.9.9.9:4711",
        "10.0.0.2:8080",
        requested=(traceparent, forwarded),
        pod=POD.key,
        identity=identity,
        baggage=baggage,
    )


@pytest.mark.parametrize(
    ("forwarded", "service"),
    [
        ('for="10.9.9.9:4711";host=b.default.svc.cluster.local', "b"),
        ('for="[fd00::1]:4711";host="b.default.svc.cluster.local"', "b"),
        ("for=unknown; host=b.default.svc.cluster.local;proto=tcp", "b"),
        ('for="10.9.9.9:4711";host=somebody.else.svc.cluster.local', "a"),
        ('for="10.9.9.9:4711"', "a"),
        ("-", "a"),
        ("host=", "a"),
        ('for="host=b.default.svc.cluster.local"', "a"),
    ],
)
def test_the_service_that_was_asked_for_is_named_if_it_is_the_pods(forwarded: str, service: str) -> None:
    (flow,) = taken(tunnel(forwarded=forwarded))
    assert flow.destination.service == f"default/{service}.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("traceparent", "trace"),
    [
        (PARENT, TRACE),
        ("-", ""),
        (PARENT + "0", ""),
        (PARENT.replace("c-", "x-"), ""),
        (PARENT.replace("319c", "    "), ""),
        ("-" * 55, ""),
    ],
)
def test_a_record_has_the_trace_of_its_request(traceparent: str, trace: str) -> None:
    (flow,) = taken(tunnel(traceparent))
    assert flow.trace == trace


def test_the_clients_side_has_the_trace_that_it_sent() -> None:
    """Its own digits and the connection's beginning, as Envoy puts them together."""
    tags = {"pod": POD.key, "host_route": "tunnel"}
    (flow,) = taken(line(names.LOG_OUTBOUND, "10.0.0.2:1", "10.9.9.9:80", (1, 1), **tags))
    assert flow.trace == f"{names.trace_prefix(POD.key)}{STARTED}000000000"
    assert len(flow.trace) == 32
    (flow,) = taken(
        line(names.LOG_OUTBOUND, "10.0.0.2:1", "10.9.9.9:80", (1, 1), pod=POD.key, route="direct")
    )
    assert flow.trace == ""


def test_a_peer_that_nobody_knows_is_what_it_says() -> None:
    """Beside its identity, which it proved."""
    (flow,) = taken(tunnel(baggage=BAGGAGE))
    assert msgspec.to_builtins(flow.source) == {
        "address": "10.9.9.9:4711",
        "workloadName": "caller",
        "namespace": "far",
        "identity": PEER,
        "canonicalService": "shop",
        "canonicalRevision": "v3",
        "cluster": "there",
        "region": "r",
        "zone": "z",
    }


@pytest.mark.parametrize("identity", ["spiffe://cluster.local/ns/other/sa/caller", ""])
def test_words_that_no_certificate_bears_out_do_not_count(identity: str) -> None:
    (flow,) = taken(tunnel(baggage=BAGGAGE, identity=identity or "-"))
    assert (flow.source.workload_name, flow.source.cluster) == ("", "")
    assert flow.source.identity == identity


words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=60)


@settings(max_examples=60, deadline=None)
@given(words, words, words, words)
def test_whatever_a_peer_writes_nothing_else_changes(
    trace: str, forwarded: str, baggage: str, authority: str
) -> None:
    text = line(
        names.LOG_INBOUND,
        "10.9.9.9:4711",
        authority or "-",
        requested=(trace, forwarded),
        pod=POD.key,
        identity=PEER,
        baggage=baggage,
    )
    (flow,) = taken(text.encode())
    assert (flow.source.identity, flow.source.namespace) == (PEER, "far")
    assert (flow.destination.workload, flow.decision, flow.error) == ("server", "allow", "")
    assert flow.destination.service in SERVER.services
