"""One line per connection on standard output, with ztunnel's keys (`src/telemetry.rs`), so that tools that
read its log read ours."""

import datetime as dt
from functools import lru_cache

import msgspec

from ambit.agent.record import End, Flow, Reporter
from ambit.node.flows.record import Connection

Parts = tuple[str, str, str, str, str, str]
"""A line without its numbers. Between the parts: time, the client's port, bytes sent, bytes received, duration."""


def line_parts(flow: Flow, *, as_json: bool = False) -> Parts:
    """What lines about such connections have in common."""
    level = "error" if flow.failed else "info"
    direction = "outbound" if flow.reporter is Reporter.SOURCE else "inbound"
    source = _end("src", flow.source)
    destination = {"dst.addr": flow.destination.address, **_end("dst", flow.destination)}
    if as_json:
        ends = {**source, **destination, "direction": direction}
        return (
            f'{{"level":"{level}","time":"',
            f'","scope":"access","message":"connection complete","src.addr":"{flow.source.address}:',
            f'",{_members(ends)},"bytes_sent":"',
            '","bytes_recv":"',
            '","duration":"',
            f'ms"{"".join("," + _members({key: text}) for key, text in _outcome(flow).items())}}}',
        )
    between = f"dst.addr={flow.destination.address}{_text(_end('dst', flow.destination))}"
    return (
        "",
        f"\t{level}\taccess\tconnection complete\tsrc.addr={flow.source.address}:",
        f"{_text(source)} {between} direction={direction} bytes_sent=",
        " bytes_recv=",
        ' duration="',
        f'ms"{_text(_outcome(flow))}',
    )


def access_line(parts: Parts, flow: Flow, connection: Connection) -> str:
    """The line, without its end. Bytes are from the reporter's own view."""
    ours, theirs = connection.received, connection.sent
    if flow.reporter is Reporter.DESTINATION:
        ours, theirs = theirs, ours
    begin, source, destination, received, duration, end = parts
    milliseconds = connection.milliseconds
    stamp = _stamp(connection.started // 1000 + int(milliseconds * 1000))
    return (
        f"{begin}{stamp}{source}{connection.port}{destination}{ours}{received}{theirs}"
        f"{duration}{milliseconds:.0f}{end}"
    )


def _outcome(flow: Flow) -> dict[str, str]:
    fields = {}
    if flow.policy:
        fields["policy"] = flow.policy
    if flow.failed:
        word = "cut" if flow.cut else "denied"
        denial = f"{word} by policy {flow.policy}" if flow.policy else word
        fields["error"] = denial if flow.decision == "deny" else flow.error
    return fields


def _end(prefix: str, end: End) -> dict[str, str]:
    found = {
        f"{prefix}.workload": end.workload,
        f"{prefix}.namespace": end.namespace,
        f"{prefix}.identity": end.identity,
        f"{prefix}.cluster": end.cluster,
        f"{prefix}.service": end.service.partition("/")[2] if prefix == "dst" else "",
    }
    return {key: value for key, value in found.items() if value}


def _text(fields: dict[str, str]) -> str:
    return "".join(f" {key}={msgspec.json.encode(value).decode()}" for key, value in fields.items())


def _members(fields: dict[str, str]) -> str:
    return msgspec.json.encode(fields).decode()[1:-1]


def _stamp(microseconds: int) -> str:
    second, rest = divmod(microseconds, 1_000_000)
    return f"{_second(second)}.{rest:06d}Z"


@lru_cache(16)
def _second(second: int) -> str:
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
