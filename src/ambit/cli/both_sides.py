"""What one side of a connection or request tells, put right by what only the other one knows. Pure."""

from collections.abc import Iterable
from typing import Any

Flow = dict[str, Any]
_Tunnel = tuple[str, str, str]
_Request = tuple[str, str, str, int]


def agreed(flows: Iterable[Flow]) -> list[Flow]:
    """The same records; a connection that the server's node cut is told as cut by the client's node as well, and a
    request with the rule by which the server's node decided.

    That node tells it by itself when it had heard of the policy before the connection ended. Whether one that ended
    earlier was cut, or was over, it cannot know: Envoy's log has no difference. A trace is what a peer says, so the
    ends must be the same, too. So they must be of a request, whose id anybody may choose.
    """
    found = _decided(list(flows))
    cuts = {_tunnel(flow): flow for flow in found if flow.get("cut") and flow["reporter"] == "destination"}
    return [_put_right(flow, cuts.get(_tunnel(flow))) for flow in found] if cuts else found


def _put_right(flow: Flow, cut: Flow | None) -> Flow:
    is_open = flow.get("decision") != "deny" and not flow.get("error")
    if cut is None or flow["reporter"] != "source" or not is_open or not flow.get("trace"):
        return flow
    told = {key: value for key, value in flow.items() if key != "dryRun"}
    return told | {"decision": "deny", "policy": cut.get("policy", ""), "cut": True}


def _tunnel(flow: Flow) -> _Tunnel:
    client = str(flow["source"]["address"]).rpartition(":")[0]
    return str(flow.get("trace", "")), client, str(flow["destination"]["address"])


def _decided(flows: list[Flow]) -> list[Flow]:
    """Of several tries of a request the newest with the same answer counts."""
    told: dict[_Request, Flow] = {}
    for flow in sorted(flows, key=lambda each: float(each.get("time", 0))):
        if flow["reporter"] == "destination" and (key := _request(flow)) is not None:
            told[key] = flow
    return [_with_rule(flow, told) for flow in flows] if told else flows


def _with_rule(flow: Flow, told: dict[_Request, Flow]) -> Flow:
    key = _request(flow) if flow["reporter"] == "source" and flow.get("decision") != "deny" else None
    server = told.get(key) if key is not None else None
    if server is None:
        return flow
    known = {name: server[name] for name in ("decision", "policy", "dryRun", "audited") if server.get(name)}
    if known.get("decision") == "deny":
        known["request"] = flow["request"] | {"details": server["request"].get("details", "")}
    return flow | known


def _request(flow: Flow) -> _Request | None:
    """What both sides know of a request."""
    request = flow.get("request")
    if request is None or not request.get("id"):
        return None
    caller = str(flow["source"].get("identity", ""))
    return str(request["id"]), caller, str(flow["destination"]["address"]), int(request.get("code", 0))
