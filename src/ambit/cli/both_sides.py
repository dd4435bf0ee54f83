"""What one side of a connection tells, put right by what only the other one knows. Pure."""

from collections.abc import Iterable
from typing import Any

Flow = dict[str, Any]
_Tunnel = tuple[str, str, str]


def agreed(flows: Iterable[Flow]) -> list[Flow]:
    """The same records; a connection that the server's node cut is told as cut by the client's node as well.

    That node tells it by itself when it had heard of the policy before the connection ended. Whether one that ended
    earlier was cut, or was over, it cannot know: Envoy's log has no difference. A trace is what a peer says, so the
    ends must be the same, too.
    """
    found = list(flows)
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
