"""The access log of clients of UDP: one text about each session that has ended, many in one message to the agent
(`ambit.agent.datagram_entry`). The first line is what differs between any two (`NUMBERS`), the second what sessions
have in common (`ABOUT`). The client's address is in the first: who writes any address into datagrams makes no new
second line.

There are no running totals: of each address that somebody made up that would be a text every few seconds.
"""

from typing import Any

from ambit.envoy import names
from ambit.envoy.logs import access_log
from ambit.envoy.logs.access_log import SEPARATOR
from ambit.envoy.logs.request_log import LINE

KIND = "session"
"""Begins these texts."""
_SESSION = "%DYNAMIC_METADATA(udp.proxy.session:{})%"
NUMBERS: access_log.Layout = {
    "now": "%EMIT_TIME(%s.%6f)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "client_port": "%DOWNSTREAM_REMOTE_PORT%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "datagrams_received": _SESSION.format("datagrams_received"),
    "datagrams_sent": _SESSION.format("datagrams_sent"),
}
ABOUT: access_log.Layout = {
    "known": access_log.KNOWN_FORMAT,
    "upstream": "%UPSTREAM_HOST%",
    "dialled": "%DOWNSTREAM_LOCAL_ADDRESS%",
}


def every() -> Any:
    """Every session, in a log of its own. The same for all listeners: Envoy keeps a buffer for each distinct one."""
    body = LINE.join((SEPARATOR.join((KIND, *NUMBERS.values())), SEPARATOR.join(ABOUT.values())))
    return access_log.to_agent(names.LOG_DATAGRAMS, body)


def known(listener: str, route: str, service: str) -> str:
    """What records say of an endpoint, as one text (as `access_log.known`): the Gateway's listener, the route's rule,
    the key of the service that datagrams are led to."""
    return access_log.known(listener, route, service)
