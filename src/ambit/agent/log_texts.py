"""What a message of Envoy's access logs holds, as texts. Pure."""

from collections.abc import Iterator, Sequence

from ambit.envoy.logs.access_log import KNOWN_SEPARATOR, UNKNOWN
from ambit.xds.protos import logs_pb2


def texts(message: bytes) -> Iterator[tuple[int, str]]:
    """When each record began, in nanoseconds since 1970, and its text."""
    for resource in logs_pb2.Export.FromString(message).resources:
        for scope in resource.scopes:
            for record in scope.records:
                yield record.time_unix_nano, str(record.body.value, "utf-8", "replace")


def endpoint(known: str) -> tuple[str, str, str]:
    """What is known of an endpoint (`ambit.envoy.logs.access_log.known`): pod, identity, baggage."""
    pod, _, rest = known.partition(KNOWN_SEPARATOR)
    identity, _, baggage = rest.partition(KNOWN_SEPARATOR)
    return pod, identity, baggage


def named(layout: Sequence[str], values: Sequence[str]) -> dict[str, str] | None:
    """Values by the names of their places, empty where Envoy knows none; None when there are too few. A peer's tab
    makes further ones, after all of ours but its own."""
    if len(values) < len(layout):
        return None
    return dict(zip(layout, (value if value != UNKNOWN else "" for value in values), strict=False))
