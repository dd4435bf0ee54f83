"""Lines about requests that a node's agent prints, because its Envoy's output is nobody's: each a text for the agent.

Its first line is empty where the rest is the line itself; else it has the names of members (JSON), and each further
line the value of one. No header has a line feed.
"""

import json
from typing import Any

from ambit.envoy import names
from ambit.envoy.logs import access_log
from ambit.envoy.logs.request_log import LINE, USUAL_MEMBERS, USUAL_TEXT
from ambit.model.telemetry import LogFormat, RequestLog


def to_agent(log: RequestLog) -> Any:
    """What a provider prints, of the requests that it prints."""
    made = access_log.to_agent(names.LOG_LINES, _body(log.printer.format), path=names.LINES_PATH)
    if log.filter:
        made.filter.extension_filter.CopyFrom(access_log.cel(log.filter))
    return made


def _body(wanted: LogFormat) -> str:
    if not wanted.is_json:
        return LINE + (wanted.text or USUAL_TEXT).rstrip("\n")
    members = dict(wanted.members) or USUAL_MEMBERS
    told = json.dumps(list(members)).replace("%", "%%")
    return LINE.join((told, *(each.replace("\n", " ") for each in members.values())))
