import asyncio
import datetime as dt
from typing import Any

import grpc
import msgspec
import pytest

from ambit.ca.authority import Authority
from ambit.control.answers import Progress
from ambit.control.identity.callers import Refused, read_review
from ambit.control.identity.pods import is_enrolled
from ambit.control.mesh import updates_of
from ambit.control.metrics import Counters
from ambit.control.server import ServerCertificate
from ambit.control.statuses.status import accepted, acknowledged
from ambit.control.statuses.status_fields import merged
from ambit.core.finding import Finding, Level, ObjectRef
from ambit.core.identity import Identity
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.policy import Action, Authorization, Clause, Match, Rule, Scope
from ambit.model.service import Service
from ambit.model.status import Condition
from ambit.model.workload import Workload
from ambit.objects.kube import Pod
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, from_resource


@pytest.mark.parametrize(
    ("enrolled", "pod", "namespace"),
    [
        (False, {}, ""),
        (True, {}, "ambient"),
        (False, {"labels": "none"}, "ambient"),
        (True, {"labels": "ambient"}, ""),
        (True, {"labels": "none", "annotation": True}, ""),
        (False, {"host": True}, "ambient"),
        (False, {"host": True, "annotation": True}, "ambient"),
        (False, {"sidecar": True}, "ambient"),
    ],
)
def test_who_is_enrolled(enrolled, pod, namespace):
    value: Any = {"metadata": {"name": "p", "labels": {}, "annotations": {}}, "spec": {}}
    if "labels" in pod:
        value["metadata"]["labels"]["istio.io/dataplane-mode"] = pod["labels"]
    if "annotation" in pod:
        value["metadata"]["annotations"]["ambient.istio.io/redirection"] = "enabled"
    if "sidecar" in pod:
        value["metadata"]["annotations"]["sidecar.istio.io/status"] = "{}"
    value["spec"]["hostNetwork"] = "host" in pod
    labels = {"istio.io/dataplane-mode": namespace} if namespace else {}
    assert is_enrolled(msgspec.convert(value, Pod), labels) is enrolled


@pytest.mark.parametrize("review", [{}, {"status": None}, {"status": {"authenticated": "true"}}])
def test_a_review_without_an_answer_is_a_refusal(review):
    with pytest.raises(Refused) as caught:
        read_review(review)
    assert caught.value.status is grpc.StatusCode.UNAUTHENTICATED


def test_policies_come_before_what_names_them_and_go_after_it():
    policy = Authorization(name="p", namespace="a", scope=Scope.GLOBAL, action=Action.DENY)
    workload = Workload(uid="u", name="w", namespace="a", identity=Identity("t", "a", "b"), policies=("a/p",))
    service = Service(name="s", namespace="a", hostname="s.a.svc")
    delta = MeshDelta(
        workloads=Delta({"u": workload}, ("gone",)),
        services=Delta({"a/s.a.svc": service}, ("a/gone",)),
        authorizations=Delta({"a/p": policy}, ("a/old",)),
    )
    policies, addresses, gone = updates_of(delta)
    assert (policies.type_url, list(policies.changed)) == (AUTHORIZATION_TYPE, ["a/p"])
    assert (addresses.type_url, list(addresses.changed)) == (ADDRESS_TYPE, ["a/s.a.svc", "u"])
    assert tuple(addresses.removed) == ("a/gone", "gone")
    assert (gone.type_url, dict(gone.changed), tuple(gone.removed)) == (AUTHORIZATION_TYPE, {}, ("a/old",))
    assert updates_of(MeshDelta()) == []


async def ask(port, request, address="127.0.0.1"):
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer.split(b"\r\n", 1)[0].decode(), answer.split(b"\r\n\r\n", 1)[-1]


def test_metrics_text():
    counters = Counters()
    counters.declare("a_total", "What it is.")
    counters.count("a_total", type='q"uote')
    counters.count("a_total", 2, type="x", more="y")
    counters.count("a_total", 12_345_678, type="many")
    assert counters.render().splitlines() == [
        "# HELP a_total What it is.",
        "# TYPE a_total counter",
        'a_total{type="q\\"uote"} 1',
        'a_total{more="y",type="x"} 2',
        'a_total{type="many"} 12345678',
    ]


def test_the_server_certificate_is_renewed_at_half_of_its_life_and_after_the_signer():
    now = dt.datetime.now(dt.UTC)
    authority = Authority.create("t", now - dt.timedelta(days=2))
    certificate = ServerCertificate(lambda: authority, ["localhost"], lambda: now)
    certificate.credentials()

    def renewed_once():
        return (certificate._renewed() is not None, certificate._renewed() is None) == (True, True)

    assert certificate._renewed() is None
    now += dt.timedelta(hours=12)
    assert renewed_once()
    now -= dt.timedelta(days=1)
    assert renewed_once(), "the clock was set back: nobody would believe a certificate of the future"
    authority = Authority.create("t", now)
    assert renewed_once()


async def test_what_cannot_be_sent_keeps_its_form_and_a_policy_denies():
    workload = Workload(uid="u", name="w", namespace="a", identity=Identity("t", "a", "b"), capacity=-1)
    clause = Clause((Match(destination_ports=(-1,)),))
    policy = Authorization(
        name="p", namespace="a", scope=Scope.NAMESPACE, action=Action.ALLOW, rules=(Rule((clause,)),)
    )
    delta = MeshDelta(workloads=Delta({"u": workload}), authorizations=Delta({"a/p": policy}))
    policies, addresses = updates_of(delta)
    assert not addresses.changed
    sent = from_resource(AUTHORIZATION_TYPE, policies.changed["a/p"])
    assert (sent.action, sent.scope, sent.rules) == (Action.DENY, Scope.NAMESPACE, (Rule(),))


def condition(kind, status, **more):
    return {"type": kind, "status": status, "reason": "r", "message": "m", **more}


def test_conditions_of_others_are_left_alone_and_times_change_with_the_status():
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    theirs = condition("theirs", "True", lastTransitionTime="then")
    ours = Condition("ours", "True", "r", "m")
    first = merged([theirs], [ours], 1, now)
    assert first == [
        theirs,
        condition("ours", "True", observedGeneration=1, lastTransitionTime="2026-01-02T00:00:00Z"),
    ]
    assert merged(first, [ours], 1, now + dt.timedelta(days=1)) is None
    again = merged(first, [Condition("ours", "True", "r", "new")], 2, now + dt.timedelta(days=1))
    assert again is not None and again[1]["lastTransitionTime"] == "2026-01-02T00:00:00Z"
    changed = merged(first, [Condition("ours", "False", "r", "m")], 2, now + dt.timedelta(days=1))
    assert changed is not None and changed[1]["lastTransitionTime"] == "2026-01-03T00:00:00Z"


@pytest.mark.parametrize(
    ("status", "reason", "levels"),
    [
        ("True", "Accepted", []),
        ("True", "Accepted", [Level.INFO]),
        ("True", "PartiallyInvalid", [Level.WARNING]),
        ("False", "Invalid", [Level.WARNING, Level.ERROR]),
    ],
)
def test_acceptance(status, reason, levels):
    origin = ObjectRef("AuthorizationPolicy", "a", "p")
    said = accepted([Finding("AMB0100", level, origin, "spec.x", "is wrong") for level in levels])
    assert (said.status, said.reason) == (status, reason)
    assert status == "True" or "AMB0100 spec.x: is wrong" in said.message


def test_a_dry_run_is_not_told_as_enforced():
    origin = ObjectRef("AuthorizationPolicy", "a", "p")
    said = accepted([Finding("AMB0204", Level.INFO, origin, "metadata", "dry run")])
    assert (said.status, said.reason) == ("True", "Accepted")
    assert said.message == "attached to ztunnel for a dry run: recorded, not enforced"
    assert accepted(()).message == "attached to ztunnel"
    said = accepted((), Progress(2, (), ("n2 (why)",)))
    assert (said.status, said.reason, said.message) == ("False", "Rejected", "rejected by n2 (why)")


@pytest.mark.parametrize(
    ("status", "message", "progress"),
    [
        ("Unknown", "no node is connected", Progress(0)),
        ("True", "acknowledged by 1 node", Progress(1)),
        ("True", "acknowledged by all 3 nodes", Progress(3)),
        ("False", "waiting for n1", Progress(3, ("n1",))),
        ("False", "rejected by n2 (why)", Progress(3, ("n1",), ("n2 (why)",))),
        ("False", "waiting for 0, 1, 2, 3, 4 and 2 more", Progress(9, tuple("0123456"))),
    ],
)
def test_acknowledgement(status, message, progress):
    said = acknowledged(progress)
    assert (said.status, said.message) == (status, message)
