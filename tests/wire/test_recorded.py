"""What a stock ztunnel once said (`ztunnel.json`, by `record_ztunnel.py`), said again to our control plane's side."""

import base64
import json
from typing import Any

import msgspec
import pytest

from ambit.ca.request import parse_request
from ambit.xds import wire
from ambit.xds.events import Acknowledged, Rejected
from ambit.xds.frames import Request, Response
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambit.xds.protos import ca_pb2
from ambit.xds.session import ServerSession
from tests.wire.record_ztunnel import BAD, POLICY, RECORDED, SERVICE, WEB, bad, store

TYPES = (ADDRESS_TYPE, AUTHORIZATION_TYPE)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def stream(recorded: dict[str, Any], number: int) -> list[Request]:
    return [wire.decode_request(base64.b64decode(each)) for each in recorded["streams"][number]]


def names(responses: list[Response]) -> dict[str, set[str]]:
    """What was sent, by type; no type twice."""
    assert len({each.type_url for each in responses}) == len(responses)
    return {each.type_url: {resource.name for resource in each.resources} for each in responses}


def test_a_first_stream_asks_for_everything_and_names_its_node(recorded: dict[str, Any]) -> None:
    first, second, *later = stream(recorded, 0)
    assert (first.type_url, second.type_url) == TYPES
    for request in (first, second):
        assert request.node is not None
        assert request.node.metadata["NODE_NAME"] == "n1"
        assert request.node.id.startswith("ztunnel~10.9.9.9~ztunnel-x.istio-system~")
        assert (request.subscribe, dict(request.initial_versions)) == ((), {})
    assert all(each.node is None for each in later)
    assert recorded["metadata"] == {"authorization": "Bearer a.b.c", "clusterid": "Kubernetes"}


def test_it_is_sent_everything_and_acknowledges_it(recorded: dict[str, Any]) -> None:
    session = ServerSession(store())
    first, second, *acknowledgements, _ = stream(recorded, 0)
    sent = [*session.receive(first), *session.receive(second)]
    assert names(sent) == {ADDRESS_TYPE: {WEB.key, SERVICE.key}, AUTHORIZATION_TYPE: {POLICY.key}}
    for each in acknowledgements:
        assert session.receive(each) == []
    events = session.take_events()
    assert [type(each) for each in events] == [Acknowledged, Acknowledged]
    assert all(session.status(each).unacknowledged == 0 for each in TYPES)


def test_its_rejection_is_known_as_one_though_it_has_no_code(recorded: dict[str, Any]) -> None:
    known = store()
    session = ServerSession(known)
    *before, rejection = stream(recorded, 0)
    for each in before:
        session.receive(each)
    session.take_events()
    (pushed,) = session.notify(known.update(ADDRESS_TYPE, {BAD: bad()}))
    assert [each.name for each in pushed.resources] == [BAD]
    assert session.receive(rejection) == [], "it is not sent again"
    (event,) = session.take_events()
    assert isinstance(event, Rejected)
    assert event.error.startswith(f"{BAD}: unknown enum")
    assert session.status(ADDRESS_TYPE).error == event.error


def test_when_it_comes_back_it_gets_only_what_it_lacks(recorded: dict[str, Any]) -> None:
    """It names what it has, and has not what it rejected. An answer comes nevertheless: it waits for one."""
    known = store()
    session = ServerSession(known)
    first, second, *acknowledgements = stream(recorded, 1)
    assert set(first.initial_versions) == {WEB.key, SERVICE.key}
    assert set(second.initial_versions) == {POLICY.key}
    sent: list[Response] = []
    for each in (first, second):
        # Versions follow from our encoding, which may have changed since.
        there = {name: known.resources(each.type_url)[name].version for name in each.initial_versions}
        sent += session.receive(msgspec.structs.replace(each, initial_versions=there))
    assert names(sent) == {each: set() for each in TYPES}
    assert all(each.removed == () for each in sent)
    for each in acknowledgements:
        assert session.receive(each) == []
    assert all(session.status(each).unacknowledged == 0 for each in TYPES)


def test_what_went_meanwhile_is_removed(recorded: dict[str, Any]) -> None:
    known = store()
    known.update(ADDRESS_TYPE, {}, [WEB.key])
    (sent,) = ServerSession(known).receive(stream(recorded, 1)[0])
    assert sent.removed == (WEB.key,)


def test_its_signing_request_is_one_for_the_pods_identity(recorded: dict[str, Any]) -> None:
    request = ca_pb2.IstioCertificateRequest.FromString(base64.b64decode(recorded["signing"]))
    assert request.metadata["ImpersonatedIdentity"] == WEB.identity.uri
    assert request.validity_duration == 86_400
    assert parse_request(request.csr).identity == WEB.identity
