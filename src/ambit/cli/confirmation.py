"""Whether the newest decision record of such a connection says what the configuration does. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ambit.insight.leading import RequestAnswer
from ambit.insight.ruling import ALLOWED, ASKED, DENIED, MIXED, Ruling

Flow = dict[str, Any]
SAME_CONNECTION = 1.0
"""Seconds between what both ends report of one connection, at most."""
AGREES, DIFFERS, NONE = "agrees", "differs", "none"
UNCLEAR = "unclear"
"""It may have been a request with other headers, which records do not have."""


class Confirmation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`time` in seconds since 1970 when the connection began; `rule` as the record names it."""

    records: str
    verdict: str = ""
    rule: str = ""
    time: float = 0.0
    node: str = ""


def confirm(source: str, ruling: Ruling, flows: Iterable[Flow]) -> Confirmation:
    """`source` is NAMESPACE/NAME of a pod, or an address. Of several records the newest counts; of those of the same
    second a destination's, which knows the rule. A record without a rule is not asked for one."""
    about = [flow for flow in flows if "request" not in flow and _is_about(flow, source, ruling)]
    if not about:
        return Confirmation(NONE)
    newest = max(float(each["time"]) for each in about)
    last = [each for each in about if float(each["time"]) > newest - SAME_CONNECTION]
    flow = max(last, key=lambda each: (each["reporter"] == "destination", float(each["time"])))
    verdict = DENIED if flow.get("decision") == "deny" else ALLOWED
    rule = str(flow.get("policy", ""))
    same = verdict == ruling.verdict and (not rule or rule == ruling.rule)
    return Confirmation(AGREES if same else DIFFERS, verdict, rule, float(flow["time"]), str(flow["node"]))


def confirm_request(answer: RequestAnswer, path: str, flows: Iterable[Flow], host: str = "") -> Confirmation:
    """The newest record of such a request, to this service, of this path, and for `host` where that is given: whether
    it met the same rule, with the same outcome. `flows` are of who reads it: the waypoint, the gateway, or nodes. Where
    headers count, the newest that did, else it is unclear."""
    method = answer.request.partition(" ")[0]
    about = [
        flow
        for flow in flows
        if _is_by(flow, answer)
        and (flow["request"].get("method"), flow["request"].get("path")) == (method, path)
        and _is_from(flow["source"], answer.source)
        and _is_to(flow.get("destination", {}), answer.service)
        and (not host or str(flow["request"].get("host", "")).lower() == host.lower())
    ]
    if not about:
        return Confirmation(NONE)
    found = [_compared(answer, each) for each in sorted(about, key=lambda each: -float(each["time"]))]
    if not answer.by_headers:
        return found[0]
    same = next((each for each in found if each.records == AGREES), None)
    return same or msgspec.structs.replace(found[0], records=UNCLEAR)


def _compared(answer: RequestAnswer, flow: Flow) -> Confirmation:
    request = flow["request"]
    verdict = DENIED if flow.get("decision") == "deny" else f"{request.get('code', 0)}"
    route = str(request.get("route", ""))
    is_open = answer.verdict == ASKED or (answer.is_inline and answer.verdict == MIXED)
    if _is_barred(answer):
        same = verdict != DENIED and bool(flow.get("error"))
    else:
        same = is_open or (verdict == DENIED) == (answer.verdict == DENIED)
    same = same and (verdict == DENIED or not answer.route or route.partition("#")[0] == answer.route)
    rule = str(flow.get("policy", "")) if verdict == DENIED else route
    by = {each.rule for each in answer.rulings if each.verdict == DENIED}
    if verdict == DENIED and by and rule:
        same = same and rule in by
    reader = answer.reader or str(flow["node"])
    return Confirmation(AGREES if same else DIFFERS, verdict, rule, float(flow["time"]), reader)


def _is_barred(answer: RequestAnswer) -> bool:
    """Whether who reads it lets it pass and every endpoint refuses him. He hears no reason: his record is of a request
    that nobody answered."""
    denied_there = answer.policy is not None and answer.policy.verdict == DENIED
    return answer.verdict == DENIED and not answer.is_inline and not denied_there


def _is_by(flow: Flow, answer: RequestAnswer) -> bool:
    """Whether the record is that of who reads the request."""
    if answer.is_inline:
        return bool(flow["reporter"] == "source")
    return bool(flow.get("proxy") == answer.reader)


def _is_to(server: dict[str, Any], service: str) -> bool:
    """What was answered by the waypoint itself, and what was asked by a pod's address, may have no service."""
    return not service or str(server.get("service", "")) in ("", service)


def _is_from(client: dict[str, Any], source: str) -> bool:
    """Waypoints know a caller's address and workload, not its pod's name, which its node knows: `source` is
    `NAMESPACE/POD`."""
    namespace, _, pod = source.partition("/")
    workload = str(client.get("workloadName", ""))
    if not pod:
        return _host(client["address"]) == source
    if "workload" in client:
        return (client.get("namespace"), client["workload"]) == (namespace, pod)
    return client.get("namespace") == namespace and (pod == workload or pod.startswith(f"{workload}-"))


def _is_about(flow: Flow, source: str, ruling: Ruling) -> bool:
    client, server = flow["source"], flow["destination"]
    host, _, port = str(server["address"]).rpartition(":")
    return (
        source in (f"{client.get('namespace', '')}/{client.get('workload', '')}", _host(client["address"]))
        and host.strip("[]") == ruling.address
        and port == str(ruling.port)
    )


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
