"""Services that are bound to a waypoint without pods: callers' own nodes route requests to them, and the nodes of their
pods enforce policies and rules about tokens.

Last of all that is done to a service. What nobody would enforce or speak leaves a waypoint that nobody has, and nodes
refuse what is to go there:

1. Rules about what a route changes on the way (a path, a host, a header): pods see requests as they arrive, so such a
   rule would let in what it refuses at a waypoint. CUSTOM looks at all that the provider is shown.
2. Rules for a ServiceEntry: its endpoints need not be in the mesh.
3. TLS to servers (`Service.backend_tls`) beside rules: callers' nodes speak it, so pods' nodes could read no request.
4. TLS for bytes: callers' nodes speak it for requests only.
5. `ExternalAuth` of a route: callers' nodes would ask, and not everybody comes from one.
6. What is more than MOST_IN_NAMESPACE: tables and rules travel with each service to every node, and a policy for a
   Gateway is said again for each of its services, so one object could fill the message that all nodes are sent.

Only entries of the owner's own routes count in any of these. A consumer's are for its own requests, which do not reach
the service changed (`ambit.ingest.gateway.consumers`), and have a share of their own
(`ambit.ingest.gateway.route_shares`).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.core.names import GATEWAY_CLASS_NAMES, WAYPOINT_CLASSES
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.bounds import beyond
from ambit.ingest.waypoints.unenforced import forbids
from ambit.model.http import Action, HeaderChanges
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import Target, TokenPolicy
from ambit.model.policy import Exact, Prefix, Suffix, text_hits
from ambit.model.provider import Authorizer, Others
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.request_policy import Attribute, RequestPolicy
from ambit.model.service import Service
from ambit.model.telemetry import InlineTelemetry, TelemetryPolicy
from ambit.model.telemetry import Level as Told
from ambit.objects.kube import Namespace

MOST_IN_NAMESPACE = 8 * 1024 * 1024
"""Bytes that the services of one namespace may have every node carry: its services go in the order of their names."""
PATH, HOST = ":path", ":authority"
_USUAL_TOKEN = "authorization"  # noqa: S105 - the name of a header
_SHOWN_ALWAYS = frozenset({PATH, HOST, _USUAL_TOKEN, "content-length"})
"""To an authorizer over HTTP, beside the method (Envoy: `ExtAuthz.allowed_headers`)."""
_READ = {Attribute.PATH: PATH, Attribute.HOST: HOST, Attribute.REMOTE_IP: "x-forwarded-for"}


class Inline:
    """Which waypoints are inline, the tables of what is bound to them, the rules for it, and what they cannot do."""

    def __init__(
        self,
        graph: Graph,
        namespaces: Collection[Namespace],
        services: Collection[Service],
        proxies: Collection[Proxy],
        tables: Collection[ServiceRoutes],
        tokens: Collection[TokenPolicy],
        policies: Collection[RequestPolicy],
        telemetry: Collection[TelemetryPolicy],
    ) -> None:
        self._services = services
        self._bound = services.index(lambda each: [_place(each)] if each.waypoint is not None else [])
        self._by_host = proxies.index(_host)
        self._tables = tables
        self._tokens = tokens.index(_targets)
        self._policies = policies.index(_targets)
        self._telemetry = telemetry.index(_told_of)
        sources: dict[str, Collection[Any]] = {
            "tables": tables,
            "tokens": tokens,
            "policies": policies,
            "telemetry": telemetry,
        }
        self._sizes = {
            name: graph.derive(
                f"sizes of {name} that nodes are told", source, lambda _, each: _size(_own(each))
            )
            for name, source in sources.items()
        }
        self._in_namespace = services.index(
            lambda each: [each.namespace] if each.waypoint is not None else []
        )
        self._too_much = graph.derive(
            "services that nodes are told too much of",
            namespaces,
            lambda context, given: self._over(context, given.metadata.name) or None,
        )

    def service(self, context: Context, given: Service) -> Service:
        """The service with its tables and rules instead of its waypoint, when that is inline."""
        proxy = self._proxy(context, given)
        if proxy is None or self._problem(context, given, proxy):
            return given
        rules = self._rules(context, given, proxy)
        return msgspec.structs.replace(
            given,
            waypoint=None,
            inline=self._tables_of(context, given),
            rules=rules if rules.say_anything else None,
            telemetry=self._told(context, given, proxy),
        )

    def why_closed(self, context: Context, given: Service) -> tuple[str, str] | None:
        """The key of a service that nobody reaches, and why."""
        proxy = self._proxy(context, given)
        text = self._problem(context, given, proxy) if proxy is not None else ""
        return (given.key, text) if text else None

    def finding(self, context: Context, given: Service) -> tuple[Finding, ...] | None:
        """The same for `ambit check`, on the object: what it is because of may be somebody else's and look well."""
        why = self.why_closed(context, given)
        if why is None:
            return None
        origin = ObjectRef("Service" if given.is_kubernetes else "ServiceEntry", given.namespace, given.name)
        text = f"connections to {given.hostname} are refused: {why[1]}"
        return (Finding("AMB0411", Level.ERROR, origin, "metadata.labels", text),)

    def closed(self, context: Context, place: str) -> dict[str, str]:
        """Of the services that are bound to the inline waypoint at `<namespace>/<hostname>` those that nobody reaches,
        by their keys, and why."""
        found = {}
        for each in context.lookup(self._bound, place):
            proxy = self._proxy(context, each)
            if proxy is not None and (text := self._problem(context, each, proxy)):
                found[each.key] = text
        return found

    def _over(self, context: Context, namespace: str) -> frozenset[str]:
        bound = ((each, self._proxy(context, each)) for each in context.lookup(self._in_namespace, namespace))
        sizes = ((each.key, self._weight(context, each, proxy)) for each, proxy in bound if proxy is not None)
        return beyond(MOST_IN_NAMESPACE, sizes)

    def _weight(self, context: Context, given: Service, proxy: Proxy) -> int:
        """About how many bytes nodes are told of the service's requests."""
        rules, told = self._rules(context, given, proxy), self._told(context, given, proxy)
        keys = {
            "tables": {each.key for each in self._tables_of(context, given)},
            "policies": {each.key for each in rules.policies},
            "tokens": {each.key for each in rules.tokens},
            "telemetry": {each.key for each in told.policies} if told is not None else set[str](),
        }
        return sum(
            context.get(self._sizes[name], key) or 0 for name, several in keys.items() for key in several
        )

    def _proxy(self, context: Context, given: Service) -> Proxy | None:
        found = context.lookup(self._by_host, _place(given)) if given.waypoint is not None else ()
        return found[0] if found else None

    def _tables_of(self, context: Context, given: Service) -> tuple[ServiceRoutes, ...]:
        found = (
            context.get(self._tables, f"{given.key}:{port}")
            for port in sorted({each.service for each in given.ports})
        )
        return tuple(each for each in found if each is not None)

    def _problem(self, context: Context, given: Service, proxy: Proxy) -> str:
        if given.key in (context.get(self._too_much, given.namespace) or ()):
            return TOO_MUCH
        tables, rules = self._tables_of(context, given), self._rules(context, given, proxy)
        called = ({(given.key, port) for port in given.backend_tls}, _backends(tables))
        if rules.forbid and any(self._speaks_tls(context, *each) for each in set().union(*called)):
            return f"{_names(rules)}: {UNREADABLE}"
        return _tls_for_bytes(given, tables) or _asked(tables) or problem(given, tables, rules)

    def _speaks_tls(self, context: Context, key: str, port: int) -> bool:
        found = context.get(self._services, key)
        return found is not None and port in found.backend_tls

    def _told(self, context: Context, given: Service, proxy: Proxy) -> InlineTelemetry | None:
        """All that may be about its requests."""
        places = ("", f"{proxy.identity.namespace}/", *_names_of(given, proxy))
        found = {each.key: each for place in places for each in context.lookup(self._telemetry, place)}
        return InlineTelemetry(proxy, tuple(found[key] for key in sorted(found))) if found else None

    def _rules(self, context: Context, given: Service, proxy: Proxy) -> InlineRules:
        named = _names_of(given, proxy)
        policies = {each.key: each for name in named for each in context.lookup(self._policies, name)}
        tokens = {each.key: each for name in named for each in context.lookup(self._tokens, name)}
        return InlineRules(
            tuple(policies[key] for key in sorted(policies)), tuple(tokens[key] for key in sorted(tokens))
        )


_CLASS = "GatewayClass"
_OTHER_CLASSES = frozenset((*WAYPOINT_CLASSES, *GATEWAY_CLASS_NAMES))
TOO_MUCH = (
    f"what nodes are told of the namespace's services is more than {MOST_IN_NAMESPACE >> 20} MiB, each route and "
    "policy counted for each service: have fewer values, or a waypoint with pods"
)
UNREADABLE = "pods' nodes cannot read requests that a BackendTLSPolicy has encrypted before"


def _own(given: object) -> object:
    """Of a table what its service's owner has written."""
    return (*given.own_entries, *given.streams) if isinstance(given, ServiceRoutes) else given


def _size(given: object) -> int:
    return len(msgspec.json.encode(given, enc_hook=str))


def _names(rules: InlineRules) -> str:
    return ", ".join(
        (*(each.key for each in rules.policies if forbids(each)), *(each.key for each in rules.tokens))
    )


def _tls_for_bytes(service: Service, tables: tuple[ServiceRoutes, ...]) -> str:
    routed = msgspec.structs.replace(service, inline=tables)
    ports = [str(port) for port in sorted(service.backend_tls) if routed.inline_routes(port) is None]
    if not ports:
        return ""
    return f"a BackendTLSPolicy asks for TLS on port {', '.join(ports)}, which is not said to speak HTTP"


def _asked(tables: Iterable[ServiceRoutes]) -> str:
    """Why routes cannot have anybody asked here. Routes of callers close nothing to others: who meets one with
    `ExternalAuth` gets nowhere, because there is no way to whom it asks."""
    asking = (
        entry for table in tables for entry in table.own_entries if entry.action.external_auth is not None
    )
    found = next((each.name for each in asking), "")
    return (
        f"ExternalAuth of {found}: who comes past its callers' nodes would be let in without" if found else ""
    )


def problem(service: Service, tables: Iterable[ServiceRoutes], rules: InlineRules) -> str:
    """Why nobody could enforce these rules for the service; empty when its pods' nodes do."""
    if not rules.forbid:
        return ""
    forbidding = [each for each in rules.policies if forbids(each)]
    if not service.is_kubernetes:
        return f"{_names(rules)} is for a ServiceEntry, whose endpoints enforce nothing"
    changed = set(_changed(tables))
    for key, looked_at in _looked_at(forbidding, rules.tokens):
        if looked_at in changed:
            return f"{key} looks at {looked_at}, which a route of the service changes before pods see it"
    for policy in forbidding:
        if policy.asked is not None and (name := next(_shown(policy.asked.authorizer, changed), "")):
            who = f"provider {policy.provider} of {policy.key}"
            return f"{who} is shown {name}, which a route of the service changes before pods see it"
    return ""


def _shown(authorizer: Authorizer, changed: Iterable[str]) -> Iterator[str]:
    """What of this an authorizer is shown: over gRPC all, over HTTP headers that he is to have, too."""
    over = authorizer.http
    for name in sorted(changed):
        if over is None or name in _SHOWN_ALWAYS or any(_hits(each, name) for each in over.check):
            yield name


def _hits(pattern: Exact | Prefix | Suffix | Others, name: str) -> bool:
    return name not in pattern.names if isinstance(pattern, Others) else text_hits(pattern, name)


def _looked_at(policies: Iterable[RequestPolicy], tokens: Iterable[TokenPolicy]) -> Iterator[tuple[str, str]]:
    """Names of headers that rules look at, with those of HTTP/2 for path and host, each by the rules' key."""
    for policy in policies:
        for rule in policy.rules:
            for match in (match for clause in rule.clauses for match in clause.matches):
                for each in match.conditions:
                    name = each.name[0] if each.attribute is Attribute.HEADER else _READ.get(each.attribute)
                    if name:
                        yield policy.key, name
    for given in tokens:
        for token in given.rules:
            yield from ((given.key, header.name.lower()) for header in token.headers)
            if token.cookies:
                yield given.key, "cookie"
            if not (token.headers or token.params or token.cookies):
                yield given.key, _USUAL_TOKEN


def _changed(tables: Iterable[ServiceRoutes]) -> Iterator[str]:
    """What routes change of requests, named as in `_looked_at`."""
    for action in _actions(tables):
        rewrites = (action.rewrite, *(each.rewrite for each in action.backends))
        for rewrite in rewrites:
            if rewrite is not None and rewrite.path is not None:
                yield PATH
            if rewrite is not None and rewrite.hostname:
                yield HOST
        for changes in (action.request_headers, *(each.request_headers for each in action.backends)):
            yield from _headers(changes)


def _headers(changes: HeaderChanges) -> Iterator[str]:
    """`host` as well is the authority."""
    for name in (*(each for each, _ in (*changes.set, *changes.add)), *changes.remove):
        yield HOST if name.lower() == "host" else name.lower()


def host_of(proxy: Proxy) -> str:
    """`<namespace>/<hostname>` of the proxy's Service, by which what is bound to it names it."""
    return f"{proxy.key.partition('/')[0]}/{proxy.service}"


def _host(proxy: Proxy) -> list[str]:
    return [host_of(proxy)] if proxy.kind is ProxyKind.INLINE else []


def _place(service: Service) -> str:
    """Of its waypoint, which it has."""
    assert service.waypoint is not None
    return f"{service.waypoint.namespace}/{service.waypoint.hostname}"


def _actions(tables: Iterable[ServiceRoutes]) -> Iterator[Action]:
    """Of the owner's routes."""
    return (entry.action for table in tables for entry in table.own_entries)


def _backends(tables: Iterable[ServiceRoutes]) -> set[tuple[str, int]]:
    actions = list(_actions(tables))
    called = {(each.service, each.port) for action in actions for each in action.backends}
    return called | {(each.service, each.port) for action in actions for each in action.mirrors}


def _names_of(service: Service, proxy: Proxy) -> tuple[str, ...]:
    """How targets name it, its Gateway and its class."""
    kind = "Service" if service.is_kubernetes else "ServiceEntry"
    return f"{kind} {service.namespace}/{service.name}", f"Gateway {proxy.key}", _CLASS


def _told_of(policy: TelemetryPolicy) -> list[str]:
    """By whom it is for: all (empty), those of a namespace (`<namespace>/`), or targets."""
    match policy.level:
        case Told.TARGET:
            return _targets(policy)
        case Told.NAMESPACE:
            return [f"{policy.namespace}/"]
        case _:
            return [""]


def _targets(policy: TokenPolicy | RequestPolicy | TelemetryPolicy) -> list[str]:
    return [name for each in policy.targets if (name := _named(each))]


def _named(target: Target) -> str:
    """Of a GatewayClass all that are not known to be others': more rather than fewer."""
    if target.kind != _CLASS:
        return f"{target.kind} {target.namespace}/{target.name}"
    return _CLASS if target.name not in _OTHER_CLASSES else ""
