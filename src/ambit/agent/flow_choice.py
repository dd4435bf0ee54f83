"""Which flows `/flows` hands out. Pure.

`from`, `to` and `pod` are texts that must be in an end's NAMESPACE/NAME, address or service; `namespace` and `pod` are
of either end, `port` is the destination's; what a gateway reports is also to it, and of its namespace; `verdict` is
allowed, denied or failed (`denied=1` is short for that); `path` must be in a request's path, `code` is that of its
answer (`404`, `5xx`), `requests=1` leaves nothing but them; `since` is when a connection must have ended at the
earliest, in seconds since 1970. All that are given must hold.
"""

from collections.abc import Callable, Mapping

from ambit.agent.record import End, Flow, Reporter

VERDICTS = ("allowed", "denied", "failed")


def flow_choice(query: Mapping[str, str]) -> Callable[[Flow], bool]:
    """Whether a record is wanted. Raises ValueError for values that mean nothing."""
    source, destination, pod = (query.get(key, "") for key in ("from", "to", "pod"))
    namespace = query.get("namespace", "")
    port = f":{int(query['port'])}" if query.get("port") else ""
    since = float(query.get("since") or 0)
    path, code = query.get("path", ""), query.get("code", "").lower().rstrip("x")
    if query.get("code") and not code.isdecimal():
        raise ValueError("code is a status as 404, or a class of them as 5xx")
    only_requests = bool(path or code) or query.get("requests") in {"1", "true"}
    verdict = "denied" if query.get("denied") in {"1", "true"} else query.get("verdict", "")
    if verdict and verdict not in VERDICTS:
        raise ValueError(f"verdict is one of {', '.join(VERDICTS)}")

    def is_wanted(record: Flow) -> bool:
        ends = record.source, record.destination
        gateway = record.proxy if record.reporter == Reporter.GATEWAY else ""
        return (
            _has(record.source, source)
            and (_has(record.destination, destination) or destination in gateway)
            and (not pod or any(_has(end, pod) for end in ends))
            and (not namespace or namespace in (*map(_namespace, ends), gateway.partition("/")[0]))
            and record.destination.address.endswith(port)
            and (not only_requests or _is_request(record, path, code))
            and (not verdict or _verdict(record) == verdict)
            and record.time + record.milliseconds / 1000 >= since
        )

    return is_wanted


def _is_request(record: Flow, path: str, code: str) -> bool:
    request = record.request
    return request is not None and path in request.path and str(request.code).startswith(code)


def _verdict(record: Flow) -> str:
    if record.decision == "deny":
        return "denied"
    return "failed" if record.error else "allowed"


def _namespace(end: End) -> str:
    return end.namespace or end.service.partition("/")[0]


def _has(end: End, text: str) -> bool:
    return text in f"{end.namespace}/{end.workload or end.workload_name} {end.address} {end.service}"
