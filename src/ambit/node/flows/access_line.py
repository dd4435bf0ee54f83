"""One line per connection on standard output, with ztunnel's keys (`src/telemetry.rs`), so that tools that
read its log read ours."""

import datetime as dt
from functools import lru_cache

import msgspec

from ambit.node.flows.record import End, Flow, Reporter

_REMEMBERED = 4096
"""Ends whose text is kept: the same few talk to each other again and again."""


def access_line(flow: Flow, *, as_json: bool = False) -> str:
    """The line, without its end. Bytes are from the reporter's own view."""
    outbound = flow.reporter is Reporter.SOURCE
    ours, theirs = (flow.received, flow.sent) if outbound else (flow.sent, flow.received)
    direction = "outbound" if outbound else "inbound"
    stamp = _stamp(flow.time + flow.milliseconds / 1000)
    level = "error" if flow.failed else "info"
    source, destination = flow.source, flow.destination
    if as_json:
        fields = {
            "level": level,
            "time": stamp,
            "scope": "access",
            "message": "connection complete",
            **_addressed("src", source),
            **_addressed("dst", destination),
            "direction": direction,
            "bytes_sent": str(ours),
            "bytes_recv": str(theirs),
            **_outcome(flow),
        }
        return msgspec.json.encode(fields).decode()
    return (
        f"{stamp}\t{level}\taccess\tconnection complete"
        f"\tsrc.addr={source.address}{_end_text('src', *_named(source))}"
        f" dst.addr={destination.address}{_end_text('dst', *_named(destination))}"
        f" direction={direction} bytes_sent={ours} bytes_recv={theirs}{_text(_outcome(flow))}"
    )


def _outcome(flow: Flow) -> dict[str, str]:
    fields = {"duration": f"{flow.milliseconds:.0f}ms"}
    if flow.policy:
        fields["policy"] = flow.policy
    if flow.failed:
        denial = f"denied by policy {flow.policy}" if flow.policy else "denied"
        fields["error"] = denial if flow.decision == "deny" else flow.error
    return fields


def _named(end: End) -> tuple[str, str, str, str, str]:
    return end.workload, end.namespace, end.identity, end.cluster, end.service


def _addressed(prefix: str, end: End) -> dict[str, str]:
    return {f"{prefix}.addr": end.address, **_end(prefix, *_named(end))}


def _end(
    prefix: str, workload: str, namespace: str, identity: str, cluster: str, service: str
) -> dict[str, str]:
    found = {
        f"{prefix}.workload": workload,
        f"{prefix}.namespace": namespace,
        f"{prefix}.identity": identity,
        f"{prefix}.cluster": cluster,
        f"{prefix}.service": service.partition("/")[2] if prefix == "dst" else "",
    }
    return {key: value for key, value in found.items() if value}


@lru_cache(_REMEMBERED)
def _end_text(prefix: str, workload: str, namespace: str, identity: str, cluster: str, service: str) -> str:
    return _text(_end(prefix, workload, namespace, identity, cluster, service))


def _text(fields: dict[str, str]) -> str:
    return "".join(f" {key}={msgspec.json.encode(value).decode()}" for key, value in fields.items())


def _stamp(time: float) -> str:
    second, rest = divmod(round(time * 1_000_000), 1_000_000)
    return f"{_second(second)}.{rest:06d}Z"


@lru_cache(16)
def _second(second: int) -> str:
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
