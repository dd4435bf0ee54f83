"""Messages as Envoy posts them."""

from ambit.envoy.logs import access_log
from ambit.xds.protos import logs_pb2

STARTED = 1_800_000_000


def line(
    kind: str,
    client: str,
    destination: str,
    numbers: tuple[int, int] = (0, 0),
    requested: tuple[str, str] = ("-", "-"),
    **fields: str,
) -> str:
    """One line. `client` and `destination` are `address:port`, `numbers` bytes received and sent; `requested` are
    `traceparent` and `forwarded` of a tunnel; `fields` by the keys of the kind's layout."""
    host, _, port = client.rpartition(":")
    layout = [key for key in access_log.LAYOUTS[kind] if key not in access_log.NUMBERS]
    if "authority" in layout:
        known = {"status": "200", "type": "DownstreamEnd", "authority": destination}
    else:
        known = {"type": "TcpConnectionEnd", "destination": destination}
    known |= {"client": host, **fields}
    assert set(known) <= set(layout), known
    request = ("\n" + "\n".join(requested)) if "authority" in layout else ""
    first = (f"{STARTED}.012000", port, *map(str, numbers), kind)
    return "\t".join((*first, *(known.get(key) or "-" for key in layout))) + request


def message(*texts: str | bytes) -> bytes:
    """What Envoy posts: these lines together."""
    records = [
        logs_pb2.Record(
            time_unix_nano=STARTED * 10**9,
            body=logs_pb2.Text(value=text.encode() if isinstance(text, str) else text),
        )
        for text in texts
    ]
    return logs_pb2.Export(
        resources=[logs_pb2.Resource(scopes=[logs_pb2.Scope(records=records)])]
    ).SerializeToString()
