"""Pods that mean harm, at a waypoint: nothing that a policy denies reaches a server by another spelling, or inside of
something else."""

import socket

import pytest

from ambit.model.jwt import Target
from ambit.model.policy import Exact, Prefix
from ambit.model.request_policy import (
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
)
from tests.plan import hostile
from tests.plan.dataplane.served import until
from tests.plan.hostile import DENIED, END_HEADERS, END_STREAM, HOST, frame, harmful
from tests.plan.waypoint.conftest import PORT, WEB, Scene

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

_PATHS = Condition(Attribute.PATH, (Exact(DENIED), Prefix(f"{DENIED}/")))
POLICY = RequestPolicy(
    "denied",
    "default",
    RequestAction.DENY,
    (Target("Service", "default", "web"),),
    (Rule((Clause((Match((_PATHS,)),)),)),),
)


def connect(scene: Scene) -> socket.socket:
    return scene.client.connect(WEB.addresses[0].address, PORT)


def fence(scene: Scene) -> None:
    """Returns once a request is served. The first may come on a connection to the server that the attack has ended."""
    until(lambda: scene.get("/fence").status == 200, "a request after the attack is served")


def taken(scene: Scene) -> list[str]:
    found = list(scene.echoes["v1"].seen)
    scene.echoes["v1"].seen.clear()
    return found


@pytest.fixture
def protected(scene: Scene) -> Scene:
    scene.bind(authorization=(POLICY,))
    assert [scene.get(each).status for each in ("/", DENIED)] == [200, 403]
    taken(scene)
    return scene


def test_bytes_have_one_meaning(protected: Scene) -> None:
    for name, attack in hostile.ATTACKS.items():
        statuses = hostile.provoke(connect(protected), attack, lambda: fence(protected))
        assert not [each for each in taken(protected) if harmful(each)], name
        assert statuses.count(200) <= 1, name


def test_two_hosts_are_answered_with_400(scene: Scene) -> None:
    """RFC 9112 section 3.2."""
    taken(scene)
    for other in ("other", HOST):
        attack = f"GET / HTTP/1.1\r\nhost: {HOST}\r\nhost: {other}\r\n\r\n".encode()
        assert hostile.provoke(connect(scene), attack, lambda: fence(scene)) == [400]
    assert set(taken(scene)) == {"/fence"}


def test_no_spelling_of_a_path_passes(protected: Scene) -> None:
    targets = hostile.spellings()[::3]
    for begin in range(0, len(targets), 100):
        connections = [connect(protected) for _ in targets[begin : begin + 100]]
        for connection, target in zip(connections, targets[begin : begin + 100], strict=True):
            connection.sendall(f"GET {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        fence(protected)
        for connection in connections:
            connection.close()
    assert not [each for each in taken(protected) if harmful(each)]


def test_headers_of_http2_are_not_lines_of_http1(protected: Scene) -> None:
    for name, block in hostile.BLOCKS.items():
        frames = [
            frame(hostile.HEADERS, END_HEADERS, 1, block),
            frame(hostile.DATA, END_STREAM, 1, hostile.HIDDEN),
        ]
        statuses = hostile.provoke_http2(connect(protected), frames, lambda: fence(protected))
        assert not [each for each in taken(protected) if harmful(each)], name
        assert statuses.count(200) <= 1, name
