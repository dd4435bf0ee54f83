"""One decision as one line: time, source with identity, arrow, destination, how it went, and the verdict."""

from datetime import UTC, datetime
from typing import Any

import click

from ambit.cli.render.output import printable
from ambit.core.identity import Identity
from ambit.core.names import CONVERTED_STRICT_POLICY
from ambit.policy.decide import NO_ALLOW_MATCHED, UNKNOWN_POLICY

_DIRECT = "direct"
Flow = dict[str, Any]


def flow_line(flow: Flow, *, wide: bool = False) -> str:
    """A coloured line; click drops the colours where they are not wanted. `wide`: all that the record has."""
    time = datetime.fromtimestamp(flow["time"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    source, destination = flow["source"], flow["destination"]
    size = f"{flow.get('received', 0)}/{flow.get('sent', 0)}B {flow.get('milliseconds', 0.0):.1f}ms"
    parts = [
        click.style(time, dim=True),
        f"{flow['node']}/{flow['reporter']}",
        _end(source),
        "→",
        _end(destination, is_outside=flow.get("hop") == _DIRECT and not flow.get("mutualTls")),
        f"{flow.get('hop') or 'plain'} {_security(flow)}",
        size,
        _verdict(flow),
    ]
    if wide:
        parts += [_more("from", source), _more("to", destination)]
    return " ".join(parts)


def is_denied(flow: Flow) -> bool:
    return flow.get("decision") == "deny"


def _end(end: dict[str, Any], *, is_outside: bool = False) -> str:
    """`is_outside`: not in the mesh, so the account that the record has of it is what nobody proves."""
    name = f"{end.get('namespace', '')}/{end['workload']}" if end.get("workload") else end["address"]
    where = f"{name}:{end['address'].rpartition(':')[2]}" if end.get("workload") else name
    account = _account("" if is_outside else end.get("identity", ""))
    return printable(f"{where} ({account})")


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


def _account(uri: str) -> str:
    """`namespace/account` of an identity, which is what tells people most."""
    try:
        identity = Identity.parse(uri)
    except ValueError:
        return "no identity"
    return f"{identity.namespace}/{identity.service_account}"


def _security(flow: Flow) -> str:
    return "verified" if flow.get("mutualTls") else "unverified"


def _verdict(flow: Flow) -> str:
    policy = printable(flow.get("policy", "")) if flow.get("policy") else ""
    if flow.get("cut"):
        return click.style(f"DENIED, cut {_by(policy, 'destination')}", fg="red")
    if is_denied(flow):
        return click.style(f"DENIED {_by(policy, flow['reporter'])}", fg="red")
    if flow.get("error"):
        return click.style(f"FAILED {printable(flow['error'])}", fg="yellow")
    allowed = click.style("ALLOWED", fg="green") + (f" by {policy}" if policy else "")
    trial = printable(flow.get("dryRun", "")) if flow.get("dryRun") else ""
    return f"{allowed}, a dry run {_by(trial, 'destination')} would deny" if trial else allowed


def _by(policy: str, reporter: str) -> str:
    """The policy in words; without the number of a rule it is one that should have allowed."""
    if not policy:
        return "at the destination" if reporter == "source" else "by default"
    if policy == NO_ALLOW_MATCHED:
        return "because no rule of several ALLOW policies allows it"
    if policy.startswith(UNKNOWN_POLICY):
        return f"because {policy.removeprefix(UNKNOWN_POLICY)} is not known on the node yet"
    if CONVERTED_STRICT_POLICY in policy:
        return f"by {policy}: mutual TLS is STRICT"
    return f"by {policy}" if policy.endswith("]") else f"by {policy}: no rule allows it"
