"""One line per connection on standard output, with ztunnel's keys (`src/telemetry.rs`), so that tools that
read its log read ours."""

import datetime as dt

import msgspec

from ambit.node.flows.record import End, Flow, Reporter


def access_line(flow: Flow, *, as_json: bool = False) -> str:
    """The line, without its end. Bytes are from the reporter's own view."""
    ours, theirs = (
        (flow.received, flow.sent) if flow.reporter is Reporter.SOURCE else (flow.sent, flow.received)
    )
    fields = {
        **_end("src", flow.source),
        **_end("dst", flow.destination),
        "direction": "outbound" if flow.reporter is Reporter.SOURCE else "inbound",
        "bytes_sent": str(ours),
        "bytes_recv": str(theirs),
        "duration": f"{flow.milliseconds:.0f}ms",
    }
    if flow.policy:
        fields["policy"] = flow.policy
    if flow.failed:
        denial = f"denied by policy {flow.policy}" if flow.policy else "denied"
        fields["error"] = denial if flow.decision == "deny" else flow.error
    time = dt.datetime.fromtimestamp(flow.time + flow.milliseconds / 1000, dt.UTC)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    level = "error" if flow.failed else "info"
    if as_json:
        head = {"level": level, "time": stamp, "scope": "access", "message": "connection complete"}
        return msgspec.json.encode({**head, **fields}).decode()
    shown = " ".join(f"{key}={_shown(key, value)}" for key, value in fields.items())
    return f"{stamp}\t{level}\taccess\tconnection complete\t{shown}"


def _end(prefix: str, end: End) -> dict[str, str]:
    found = {
        "addr": end.address,
        "workload": end.workload,
        "namespace": end.namespace,
        "identity": end.identity,
        "cluster": end.cluster,
    }
    if prefix == "dst" and end.service:
        found["service"] = end.service.partition("/")[2]
    return {f"{prefix}.{key}": value for key, value in found.items() if value}


def _shown(key: str, value: str) -> str:
    plain = key.endswith(("addr", "bytes_sent", "bytes_recv", "direction"))
    return value if plain else msgspec.json.encode(value).decode()
