"""What a waypoint needs for hosts that are found by the name in a client's hello."""

from collections.abc import Iterable, Iterator

import msgspec
from google.protobuf.any_pb2 import Any

from ambit.envoy import names, tls
from ambit.model.server_names import NamesNote
from ambit.model.service import Service
from ambit.plan.values import CLUSTER, LISTENER, SECRET, PlannedResource, planned


def note(services: Iterable[Service]) -> Iterator[PlannedResource]:
    """For the agent, where there are such hosts at all: agents of former versions do not know it."""
    given = [each for each in services if each.server_names is not None]
    if given:
        ranges = {
            text for each in given if each.server_names is not None for text in each.server_names.ranges
        }
        own = {text for each in given if each.server_names is not None for text in each.server_names.own}
        hosts = {each.hostname for each in given}
        said = NamesNote(tuple(sorted(hosts)), tuple(sorted(ranges)), tuple(sorted(own)))
        text = msgspec.json.encode(said, order="sorted").decode()
        yield planned(SECRET, names.NAMES, tls.note(names.NAMES, text))


def parse(body: bytes) -> NamesNote:
    """The note in a resource's body. Raises ValueError."""
    try:
        return msgspec.json.decode(tls.note_in(Any.FromString(body).value), type=NamesNote)
    except msgspec.DecodeError as problem:
        raise ValueError(f"the note about names cannot be read: {problem}") from None


def inside(key: str, port: int, *, pattern: str, target: int) -> Iterator[PlannedResource]:
    """The listener inside of tunnels to this port, and the clusters that it leads to."""
    # What it is made with takes room, and few have such hosts.
    from ambit.envoy.l7 import server_names

    made = server_names.listener(key, port, pattern=pattern, target=target)
    yield planned(LISTENER, made.name, made)
    for share in range(server_names.SHARES):
        made = server_names.cluster(key, port, share)
        yield planned(CLUSTER, made.name, made)
