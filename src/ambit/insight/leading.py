"""Where a table of routes leads a request, and what endpoints say there; from configuration alone. Pure."""

from collections.abc import Callable

import msgspec

from ambit.core.finding import ObjectRef
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import ALLOWED, ASKED, Ruling, together, verdict_of
from ambit.insight.why import Answer
from ambit.model.http import Entry, Host, PathKind, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.request_policy import Attribute
from ambit.model.service import Service
from ambit.policy.route import Asked, met

ANSWERED = "answered"
_NO_BACKEND = "there is no such service, or it is not allowed: 500"
_NOT_RECORDED = frozenset({Attribute.HEADER, Attribute.REQUEST_PRINCIPAL, Attribute.CLAIM})


class Share(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where a part of such requests goes: `backend` is `<namespace>/<name>:<port>` of a service, or of a pod that
    was asked itself, `percent` how many.
    `verdict` is that of its endpoints, `reason` why it gets to none. What goes on by way of the service's waypoints is
    in `parts`."""

    backend: str
    percent: float
    verdict: str
    rulings: tuple[Ruling, ...] = ()
    reason: str = ""
    parts: "tuple[Part, ...]" = ()


class RequestAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`verdict`: allowed, denied, refused, mixed, asked (by who is asked first, else allowed), or answered by the
    waypoint itself (a redirect, an error). `route` names the rule that it meets as records do, `met` by what; `reason`
    says what else there is to say. Of a request that nobody reads `connection` has the answer; one that the client's
    own node proxy reads has neither. `policy` is what policies for requests say at the waypoint; what they deny goes
    nowhere, and has no route. `service` is the key of the service that was asked; `by_headers`: something that decides
    looks at headers or tokens. Where several waypoints share a service's requests `parts` have the answers."""

    source: str
    request: str
    verdict: str
    waypoint: str = ""
    gateway: str = ""
    """The one at the edge that it came to; then there is no waypoint."""
    route: str = ""
    met: str = ""
    origin: str = ""
    reason: str = ""
    policy: Ruling | None = None
    shares: tuple[Share, ...] = ()
    connection: Answer | None = None
    service: str = ""
    by_headers: bool = False
    parts: "tuple[Part, ...]" = ()

    @property
    def reader(self) -> str:
        """The Gateway whose proxy reads it."""
        return self.waypoint or self.gateway

    @property
    def is_inline(self) -> bool:
        """Whether the client's own node proxy reads it."""
        return not self.reader and self.connection is None and not self.parts

    @property
    def rulings(self) -> tuple[Ruling, ...]:
        """Of policies about requests, wherever they are asked."""
        if self.is_inline:
            return tuple(ruling for share in self.shares for ruling in share.rulings)
        return (self.policy,) if self.policy is not None else ()


class Part(msgspec.Struct, frozen=True):
    """What becomes of so much of the requests, in percent, which one waypoint reads."""

    percent: float
    answer: RequestAnswer


Led = tuple[Ruling, ...] | tuple[Part, ...]
"""What a backend's endpoints say to who leads a request there, or what becomes of it at the backend's waypoints."""
Lead = Callable[[Service, int], Led]


def of_service(
    answer: RequestAnswer, table: ServiceRoutes, asked: Asked, lead: Lead, compiled: Compiled
) -> RequestAnswer:
    """The answer for what comes to a port of a service by this table."""
    if not table.hosts:
        share = _share(lead, table.service, table.port, 100.0, compiled)
        reason = "no route: requests go to the service's own endpoints"
        return led(answer, reason, (share,))
    return at_table(answer, table.hosts, asked, lead, compiled)


def at_table(
    answer: RequestAnswer, hosts: tuple[Host, ...], asked: Asked, lead: Lead, compiled: Compiled
) -> RequestAnswer:
    """The answer where these rules count."""
    entry = met(hosts, asked)
    if entry is None:
        reason = f"none of its rules matches: 404. They are {_rules(hosts)}"
        return msgspec.structs.replace(answer, verdict=ANSWERED, reason=reason)
    answer = msgspec.structs.replace(
        answer, route=entry.name, met=_in_words(entry.match), origin=str(entry.origin or "")
    )
    found = _acted(answer, entry, lead, compiled)
    authorized_by = entry.action.external_auth
    if authorized_by is None:
        return found
    reason = f"{found.reason}; " if found.reason else ""
    reason += f"its rule asks {authorized_by.service}:{authorized_by.port} first"
    verdict = ASKED if found.verdict in (ALLOWED, ANSWERED) else found.verdict
    return msgspec.structs.replace(found, verdict=verdict, reason=reason)


def _acted(answer: RequestAnswer, entry: Entry, lead: Lead, compiled: Compiled) -> RequestAnswer:
    action = entry.action
    if action.redirect is not None:
        reason = f"redirected with {action.redirect.status}"
        return msgspec.structs.replace(answer, verdict=ANSWERED, reason=reason)
    total = sum(each.weight for each in action.backends)
    if not total:
        reason = f"the rule leads nowhere: {action.status}"
        return msgspec.structs.replace(answer, verdict=ANSWERED, reason=reason)
    shares = tuple(
        _share(lead, each.service, each.port, round(100 * each.weight / total, 1), compiled, entry.origin)
        for each in action.backends
        if each.weight
    )
    return led(answer, "", shares)


def led(answer: RequestAnswer, reason: str, shares: tuple[Share, ...]) -> RequestAnswer:
    """The answer when it goes on to these."""
    verdict = together(each.verdict for each in shares)
    if verdict == ALLOWED and answer.policy is not None and answer.policy.verdict == ASKED:
        verdict = ASKED
    return msgspec.structs.replace(answer, verdict=verdict, reason=reason, shares=shares)


def _share(
    lead: Lead, key: str, port: int, percent: float, compiled: Compiled, route: ObjectRef | None = None
) -> Share:
    service = next((each for each in compiled.services if each.key == key), None)
    if service is None:
        said = "" if key or route is None else _unresolved(route, compiled)
        reason = f"500; the status of its route: {said}" if said else _NO_BACKEND
        return Share(key or "nobody", percent, ANSWERED, reason=reason)
    name = f"{service.namespace}/{service.name}:{port}"
    found = lead(service, port)
    parts = tuple(each for each in found if isinstance(each, Part))
    if parts:
        return Share(name, percent, together(each.answer.verdict for each in parts), parts=parts)
    rulings = tuple(each for each in found if isinstance(each, Ruling))
    reason = "" if rulings else f"no healthy endpoint for port {port}: 503"
    return Share(name, percent, verdict_of(rulings), rulings, reason)


def _unresolved(route: ObjectRef, compiled: Compiled) -> str:
    """What a route refers to and does not get, in all of its rules: what is compiled has no names for it."""
    found = (each.text for each in compiled.findings if (each.code, each.origin) == ("AMB0402", route))
    return "; ".join(dict.fromkeys(found))


def all_hosts(service: Service, port: int, compiled: Compiled) -> tuple[Host, ...]:
    """Of rules of this port, wherever they are followed."""
    tables = [each for each in compiled.routes if isinstance(each, ServiceRoutes)]
    inline = service.inline_routes(port)
    found = [each for each in tables if (each.service, each.port) == (service.key, port)]
    found += [inline] if inline is not None else []
    return tuple(host for each in found for host in each.hosts)


def by_headers(hosts: tuple[Host, ...], compiled: Compiled) -> bool:
    """Whether anything looks at what records do not have: these rules, or any policy."""
    if any(entry.match.headers for host in hosts for entry in host.entries):
        return True
    return any(
        condition.attribute in _NOT_RECORDED
        for policy in compiled.request_policies
        for rule in policy.rules
        for clause in rule.clauses
        for match in clause.matches
        for condition in match.conditions
    )


def _rules(hosts: tuple[Host, ...]) -> str:
    entries: list[Entry] = [entry for host in hosts for entry in host.entries]
    return "; ".join(f"{each.name} ({_in_words(each.match)})" for each in entries) or "none"


def _in_words(match: RequestMatch) -> str:
    words = []
    if match.path is not None:
        words.append(
            {PathKind.EXACT: "path", PathKind.PREFIX: "path below", PathKind.REGEX: "path like"}[
                match.path.kind
            ]
            + f" {match.path.value}"
        )
    if match.method:
        words.append(f"method {match.method}")
    for kind, found in (("header", match.headers), ("query", match.queries)):
        words += [f"{kind} {each.name}{' like ' if each.is_regex else '='}{each.value}" for each in found]
    if match.source_namespaces:
        words.append(f"from {' or '.join(match.source_namespaces)}")
    return ", ".join(words) or "every request"
