"""One decision as one line: time, source with identity, arrow, destination, how it went, and the verdict."""

from datetime import UTC, datetime
from typing import Any

import click

from ambit.cli.render.output import printable
from ambit.core.identity import Identity
from ambit.core.names import CONVERTED_STRICT_POLICY, GONE_ROUND, ONLY_BY_WAYPOINT
from ambit.policy.decide import NO_ALLOW_MATCHED, UNKNOWN_POLICY

_DIRECT = "direct"
_NO_SERVER = ("answered", "inline")
"""Hops of lines that tell of no server: the proxy answered by itself, or each request goes on by itself."""
_JWT_REFUSED = "jwt_authn_access_denied"
"""Beginning of the details of Envoy's filter `jwt_authn`; the reason follows in braces."""
_OTHERS = {"ext_authz_denied": ": who was asked said no", "ext_authz_error": ": nobody could be asked"}
"""The same of Envoy's filter `ext_authz`."""
Flow = dict[str, Any]


def flow_line(flow: Flow, *, wide: bool = False) -> str:
    """A coloured line; click drops the colours where they are not wanted. `wide`: all that the record has."""
    time = datetime.fromtimestamp(flow["time"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    source, destination = flow["source"], flow["destination"]
    size = f"{flow.get('received', 0)}/{flow.get('sent', 0)}B {flow.get('milliseconds', 0.0):.1f}ms"
    parts = [
        click.style(time, dim=True),
        f"{flow.get('proxy') or flow['node']}/{flow['reporter']}",
        _end(source),
        "→",
        _destination(flow),
        f"{flow.get('hop') or 'plain'} {_security(flow)}",
        *_asked(flow.get("request")),
        *_sent(flow.get("datagrams")),
        size,
        _verdict(flow),
    ]
    if wide:
        parts += [_more("from", source), _more("to", destination), *_way(flow.get("request"))]
    return " ".join(parts)


def is_denied(flow: Flow) -> bool:
    return flow.get("decision") == "deny"


def _destination(flow: Flow) -> str:
    """The pod, or the service where no pod was asked, which has no identity to lack."""
    end, hop = flow["destination"], flow.get("hop")
    if hop in _NO_SERVER and not end.get("identity") and end.get("service"):
        host = end["service"].partition("/")[2] or end["service"]
        return printable(f"{host}:{end['address'].rpartition(':')[2]}")
    return _end(end, is_outside=hop == _DIRECT and not flow.get("mutualTls"))


def _end(end: dict[str, Any], *, is_outside: bool = False) -> str:
    """`is_outside`: not in the mesh, so the account that the record has of it is what nobody proves."""
    workload = end.get("workload") or end.get("workloadName")
    port = end["address"].rpartition(":")[2]
    where = f"{end.get('namespace', '')}/{workload}:{port}" if workload else end["address"]
    shown = account("" if is_outside else end.get("identity", "")) or "no identity"
    return printable(f"{where} ({shown})")


def _asked(request: dict[str, Any] | None) -> list[str]:
    """Method, address and answer of a request."""
    if request is None:
        return []
    grpc = f" grpc-status {request['grpcStatus']}" if request.get("grpcStatus") else ""
    where = printable(f"{request.get('method', '?')} {request.get('host', '')}{request.get('path', '')}")
    return [f"{where} {request.get('code') or 'unanswered'}{grpc}"]


def _sent(datagrams: dict[str, Any] | None) -> list[str]:
    """What a client of UDP sent and got, and by which route."""
    if datagrams is None:
        return []
    count = f"{datagrams.get('received', 0)}/{datagrams.get('sent', 0)}"
    return [printable(f"udp {datagrams.get('route') or datagrams.get('listener', '')} {count} datagrams")]


def _way(request: dict[str, Any] | None) -> list[str]:
    """What else is known of a request."""
    if request is None:
        return []
    known = {key: request.get(key) for key in ("route", "attempts", "flags", "details", "trace")}
    text = " ".join(f"{key}={value}" for key, value in known.items() if value)
    return [click.style(f"request[{printable(text)}]", dim=True)]


def _more(name: str, end: dict[str, Any]) -> str:
    """Without the namespace before a service's name, which repeats it."""
    service = end.get("service", "").partition("/")[2]
    texts = (
        end["address"],
        service,
        end.get("identity", ""),
        end.get("workloadName", ""),
        end.get("zone", ""),
    )
    return click.style(f"{name}[{printable(' '.join(text for text in texts if text))}]", dim=True)


def account(uri: str) -> str:
    """`namespace/account` of an identity, which is what tells people most; empty for what is none."""
    try:
        identity = Identity.parse(uri)
    except ValueError:
        return ""
    return f"{identity.namespace}/{identity.service_account}"


def _security(flow: Flow) -> str:
    return "verified" if flow.get("mutualTls") else "unverified"


def _verdict(flow: Flow) -> str:
    audited = ", ".join(map(printable, flow.get("audited") or ()))
    return _decided(flow) + (f", audited by {audited}" if audited else "")


def _decided(flow: Flow) -> str:
    policy = printable(flow.get("policy", "")) if flow.get("policy") else ""
    if flow.get("cut"):
        return click.style(f"DENIED, cut {_by(policy, 'destination')}", fg="red")
    if is_denied(flow) and (reason := _token(flow)):
        return click.style(f"DENIED: {reason}", fg="red")
    if is_denied(flow):
        return click.style(f"DENIED {_by(policy, flow['reporter'])}{_by_others(flow)}", fg="red")
    if flow.get("error"):
        return click.style(f"FAILED {printable(flow['error'])}", fg="yellow")
    allowed = click.style("ALLOWED", fg="green") + (f" by {policy}" if policy else "")
    trial = printable(flow.get("dryRun", "")) if flow.get("dryRun") else ""
    return f"{allowed}, a dry run {_by(trial, 'destination')} would deny" if trial else allowed


def _by_others(flow: Flow) -> str:
    """What became of it where somebody else was asked."""
    details = (flow.get("request") or {}).get("details", "")
    return next((text for begin, text in _OTHERS.items() if details.startswith(begin)), "")


def _token(flow: Flow) -> str:
    """What was wrong with a request's token, in Envoy's words; empty when a token was not the reason."""
    details = (flow.get("request") or {}).get("details", "")
    if not details.startswith(_JWT_REFUSED):
        return ""
    words = details.removeprefix(_JWT_REFUSED).strip("{}").replace("_", " ")
    return f"token not valid ({printable(words)})" if words else "token not valid"


def _by(policy: str, reporter: str) -> str:
    """The policy in words; without the number of a rule it is one that should have allowed."""
    if not policy:
        return "at the destination" if reporter == "source" else "by default"
    if policy == NO_ALLOW_MATCHED:
        return "because no rule of several ALLOW policies allows it"
    if policy.startswith(UNKNOWN_POLICY):
        return f"because {policy.removeprefix(UNKNOWN_POLICY)} is not known on the node yet"
    if policy == GONE_ROUND:
        return f"because there are {policy}"
    if CONVERTED_STRICT_POLICY in policy:
        return f"by {policy}: mutual TLS is STRICT"
    if f"/{ONLY_BY_WAYPOINT}" in policy:
        return f"by {policy}: only its waypoint may call it"
    return f"by {policy}" if policy.endswith("]") else f"by {policy}: no rule allows it"
