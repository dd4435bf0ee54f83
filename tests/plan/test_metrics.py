"""What counts when several things are said about metrics."""

import msgspec

from ambit.model.jwt import Target
from ambit.model.metrics import MetricsNote, MetricsRule, Override
from ambit.model.proxy import ProxyKind
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.plan.telemetry.metrics import expressions_of, note_of, parse, resources
from tests.plan.test_request_logs import PROXY, WEB

COUNT, SIZE, OPENED = "istio_requests", "istio_request_bytes", "istio_tcp_connections_opened"
OF_WEB = (Target("Service", "shop", "web"),)
DB = msgspec.structs.replace(WEB, name="db", hostname="db.shop.svc.cluster.local")


def policy(level: Level, *rules: MetricsRule, **more: object) -> TelemetryPolicy:
    fields: dict[str, object] = {"namespace": "shop", "metrics": rules, **more}
    return TelemetryPolicy("shop/b", level, **fields)  # type: ignore[arg-type]


MESH = policy(Level.MESH, MetricsRule((COUNT, SIZE), True, (("response_code", None),)))


def test_nothing_is_said_of_what_stays_as_it_is() -> None:
    assert note_of([], PROXY, [WEB]) == MetricsNote()
    assert resources([policy(Level.MESH, MetricsRule((COUNT,), False))], PROXY, [WEB]) == ()


def test_what_is_nearer_comes_last() -> None:
    back = policy(Level.NAMESPACE, MetricsRule((COUNT,), False, (("team", "red"),)))
    labels = (("response_code", None), ("team", "red"))
    assert note_of([back, MESH], PROXY) == MetricsNote(
        {COUNT: Override(labels=labels), SIZE: Override(True, labels[:1])}
    )


def test_services_that_are_named_have_their_own() -> None:
    own = policy(Level.TARGET, MetricsRule((SIZE,), False), targets=(Target("Service", "shop", "web"),))
    note = note_of([MESH, own], PROXY, [WEB, DB])
    assert set(note.services) == {WEB.key}
    assert not note.of(WEB.key)[SIZE].disabled and note.of(DB.key)[SIZE].disabled
    (resource,) = resources([MESH, own], PROXY, [WEB, DB])
    assert parse(resource.body) == note


def test_gateways_are_clients_of_what_they_lead_to() -> None:
    edge = msgspec.structs.replace(PROXY, kind=ProxyKind.GATEWAY)
    served = policy(Level.NAMESPACE, MetricsRule((COUNT,), True, at_gateways=False))
    assert note_of([served], edge) == MetricsNote()
    assert note_of([served], PROXY).usual == {COUNT: Override(True)}


def test_what_is_said_of_a_label_last_counts() -> None:
    valued = MetricsRule((COUNT, OPENED), expressions=(("host", "request.host"), ("team", "a")))
    nearer = MetricsRule((COUNT,), labels=(("team", "red"),), expressions=(("response_code", "b"),))
    given = [MESH, policy(Level.NAMESPACE, valued), policy(Level.TARGET, nearer, targets=OF_WEB)]
    note = note_of(given, PROXY, [WEB, DB])
    of_all = (("host", "request.host"), ("team", "a"))
    assert note.of(DB.key)[COUNT] == Override(True, (("response_code", None),), of_all)
    own = note.of(WEB.key)[COUNT]
    assert own == Override(True, (("team", "red"),), (("host", "request.host"), ("response_code", "b")))


def test_of_connections_no_expression_has_a_value() -> None:
    valued = policy(Level.MESH, MetricsRule((COUNT, OPENED), expressions=(("host", "request.host"),)))
    assert set(note_of([valued], PROXY).usual) == {COUNT}


def test_records_have_the_values_that_labels_need() -> None:
    """Of a service that has other labels only these."""
    all_of_it = policy(
        Level.MESH, MetricsRule((COUNT, SIZE), expressions=(("b", "b"), ("a", "a"), ("c", "a")))
    )
    none = policy(Level.TARGET, MetricsRule((COUNT, SIZE), disabled=True), targets=OF_WEB)
    assert expressions_of([all_of_it], PROXY, WEB) == ("a", "b")
    assert expressions_of([all_of_it, none], PROXY, WEB) == ()
    assert expressions_of([all_of_it, none], PROXY, DB) == ("a", "b")
