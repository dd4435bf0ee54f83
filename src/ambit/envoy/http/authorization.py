"""Rules for requests as predicates of Envoy's matching API. What they mean is in `ambit.policy.requests`.

Free text in expressions is `\\C*`, any bytes: `.` is a character of UTF-8, and whoever sends other bytes would get
past a rule that denies.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

import msgspec
from envoy.type.matcher.v3 import regex_pb2, string_pb2, value_pb2

from ambit.core.address import Address, Network
from ambit.envoy import filter_state, matchers, names
from ambit.envoy.matchers import Predicate
from ambit.envoy.words import AnyMessage
from ambit.model import request_paths
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, StringMatch, Suffix
from ambit.model.request_policy import Attribute, Clause, Condition, Match, RequestAction, Rule, Value

_ANY = r"\C*"
_NO_COMMA = "[^,]*"
_PART = "[^/]+"
_QUERY = rf"(?:\?{_ANY})?"
_PORT = "(?::[0-9]*)?"


class Place(msgspec.Struct, frozen=True):
    """Where a rule is enforced: what was dialled to come there (port 0: any), and whether requests are read. Where they
    are not, that is where the tunnel is opened, or at the edge, where there are no tunnels, the listener's matcher."""

    port: int
    destinations: tuple[Network, ...] = ()
    """Not at the edge, where it is the connection's own."""
    is_http: bool = True
    is_edge: bool = False
    by_tls: bool = False
    """At the edge: clients may say a name in their hello."""
    is_plain: bool = False
    """Whether connections are accepted as they come, by a listener that knows nobody's identity."""


def predicate(rule: Rule, action: RequestAction, place: Place) -> Predicate:
    """Whether a rule of a policy with this action holds."""
    reader = _Reader(place)
    is_lax = action is not RequestAction.ALLOW
    return matchers.all_of(reader.clause(clause, is_lax=is_lax) for clause in rule.clauses)


class _Reader:
    def __init__(self, place: Place) -> None:
        self._place = place

    def clause(self, clause: Clause, *, is_lax: bool) -> Predicate:
        if not clause.matches:
            return True
        return matchers.any_of(self._match(match, is_lax=is_lax) for match in clause.matches)

    def _match(self, match: Match, *, is_lax: bool) -> Predicate:
        if not match.conditions:
            return False
        return matchers.all_of(self._condition(condition, is_lax=is_lax) for condition in match.conditions)

    def _condition(self, condition: Condition, *, is_lax: bool) -> Predicate:
        wanted = self._hits(condition, condition.values, is_lax=is_lax) if condition.values else True
        unwanted = (
            self._hits(condition, condition.unwanted, is_lax=not is_lax) if condition.unwanted else False
        )
        return matchers.all_of([wanted, matchers.negated(unwanted)])

    def _hits(self, condition: Condition, values: Sequence[Value], *, is_lax: bool) -> Predicate:
        """Any of `values` hits."""
        networks = [each for each in values if isinstance(each, Network)]
        texts = [each for each in values if isinstance(each, StringMatch)]
        match condition.attribute:
            case Attribute.PRINCIPAL:
                free = self._free(is_lax=is_lax)
                return self._caller((_text(each, free) for each in texts), is_lax=is_lax)
            case Attribute.NAMESPACE:
                return self._caller(map(_namespace, texts), is_lax=is_lax)
            case Attribute.TRUST_DOMAIN:
                free = self._free(is_lax=is_lax)
                return self._caller((f"{_text(each, '[^/]*')}/{free}" for each in texts), is_lax=is_lax)
            case Attribute.SERVICE_ACCOUNT:
                accounts = (each for each in values if isinstance(each, ServiceAccountMatch))
                return self._caller(map(_account, accounts), is_lax=is_lax)
            case Attribute.SOURCE_IP:
                if self._place.is_http:
                    return matchers.filter_state_in(filter_state.CLIENT, networks)
                return matchers.source_in(networks)
            case Attribute.DESTINATION_IP:
                return self._destination(networks, is_lax=is_lax)
            case Attribute.PORT:
                return self._port([each for each in values if isinstance(each, int)])
            case Attribute.SNI if self._place.is_edge:
                names_said = map(matchers.server_name, matchers.alternatives(map(_server_name, texts)))
                return matchers.any_of(names_said) if self._place.by_tls else False
            case Attribute.UNSEEN | Attribute.SNI:
                return is_lax
            case _:
                return _of_request(condition, values, is_lax=is_lax) if self._place.is_http else is_lax

    def _port(self, ports: Sequence[int]) -> Predicate:
        if self._place.port:
            return self._place.port in ports
        return matchers.any_of(matchers.authority_port(port) for port in ports)

    def _destination(self, networks: Sequence[Network], *, is_lax: bool) -> Predicate:
        """Known before where all that may be dialled is inside, or outside."""
        if self._place.is_edge:
            return matchers.destination_in(networks)
        own = self._place.destinations
        if not any(each.overlaps(network) for each in own for network in networks):
            return False
        if all(any(_is_within(each, network) for network in networks) for each in own):
            return True
        if self._place.is_http:
            return matchers.destination_in(networks)
        inside = [each for each in own if any(each.overlaps(network) for network in networks)]
        if any(each.prefixlen < each.max_prefixlen for each in inside):
            return is_lax
        return matchers.any_of(_dialled(each.network_address) for each in inside)

    def _free(self, *, is_lax: bool) -> str:
        """Free text in an identity: within a single name, where several may be joined."""
        return _NO_COMMA if self._place.is_edge and not is_lax else _ANY

    def _caller(self, patterns: Iterable[str], *, is_lax: bool) -> Predicate:
        """The caller's identity, without its scheme, is one of these."""
        if self._place.is_plain:
            return False
        whole = (f"spiffe://(?:{each})" for each in matchers.alternatives(patterns))
        if not self._place.is_edge:
            if self._place.is_http:
                return matchers.any_of(matchers.filter_state(filter_state.CALLER, each) for each in whole)
            return matchers.any_of(map(matchers.peer_identity, whole))
        if not self._place.is_http:
            return False  # nobody is asked for a certificate there
        if is_lax:
            # Others' authorities may write several names into a certificate; Envoy joins them by commas.
            whole = (rf"(?:{_ANY},)?{each}(?:,{_ANY})?" for each in whole)
        return matchers.any_of(matchers.filter_state(filter_state.CALLER, each) for each in whole)


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _dialled(address: Address) -> Predicate:
    host = f"[{address}]" if address.version == 6 else str(address)
    return matchers.authority(f"{re.escape(host)}:[0-9]+")


def _of_request(condition: Condition, values: Sequence[Value], *, is_lax: bool) -> Predicate:
    texts = [each for each in values if isinstance(each, StringMatch)]
    match condition.attribute:
        case Attribute.REMOTE_IP:
            return matchers.source_in(each for each in values if isinstance(each, Network))
        case Attribute.PATH:
            paths = [each for each in values if isinstance(each, request_paths.PathValue)]
            return _lax_paths(paths) if is_lax else _strict_paths(paths)
        case Attribute.METHOD:
            return _header(":method", (f"{'(?i)' if is_lax else ''}{_text(each, _ANY)}" for each in texts))
        case Attribute.HOST:
            return _header(":authority", map(_host, texts))
        case Attribute.HEADER:
            return _header(condition.name[0], (_value(each, is_lax=is_lax) for each in texts))
        case Attribute.CLAIM:
            return matchers.any_of(_claim(condition.name, each) for each in texts)
        case Attribute.REQUEST_PRINCIPAL:
            return matchers.any_of(map(_request_principal, texts))
        case _:
            raise AssertionError(f"{condition.attribute} is not of a request")


def _header(name: str, patterns: Iterable[str]) -> Predicate:
    return matchers.any_of(matchers.header(name, each) for each in matchers.alternatives(patterns))


def _namespace(value: StringMatch) -> str:
    return f"{_PART}/ns/{_text(value, '[^/]*')}/sa/{_PART}"


def _account(value: ServiceAccountMatch) -> str:
    return f"{_PART}/ns/{re.escape(value.namespace)}/sa/{re.escape(value.service_account)}"


def _text(value: StringMatch, rest: str) -> str:
    match value:
        case Exact(text):
            return re.escape(text)
        case Prefix(text):
            return re.escape(text) + rest
        case Suffix(text):
            return rest + re.escape(text)
        case Presence():
            return f"{rest[:-1]}+"


def _lax_paths(values: Iterable[request_paths.PathValue]) -> Predicate:
    patterns = (*map(request_paths.lax, values), request_paths.MISLEADING)
    return _header(":path", (f"{each}{_QUERY}" for each in patterns))


def _strict_paths(values: Iterable[request_paths.PathValue]) -> Predicate:
    """By what they must not be: Envoy would have to be told of it for each value otherwise."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for value in values:
        wanted = request_paths.strict(value)
        groups.setdefault(wanted.unless, []).append(f"{wanted.path}{_QUERY}")
    return matchers.any_of(
        matchers.all_of(
            [
                _header(":path", paths),
                matchers.negated(_header(":path", (f"{each}{_QUERY}" for each in unless))),
            ]
        )
        for unless, paths in groups.items()
    )


def _server_name(value: StringMatch) -> str:
    return f"(?i){_text(value, _ANY)}"


def _host(value: StringMatch) -> str:
    """In any case, with or without the port and the dot that ends a name of DNS."""
    match value:
        case Exact(text):
            return f"(?i){_named(text)}"
        case Prefix(text):
            return f"(?i){re.escape(text)}{_ANY}"
        case Suffix(text):
            return f"(?i){_ANY}{_named(text)}"
        case Presence():
            return r"\C+"


def _named(text: str) -> str:
    name, colon, port = text.rpartition(":")
    if colon and port.isdecimal():
        return rf"{re.escape(name)}\.?:{port}"
    return rf"{re.escape(text)}\.?{_PORT}"


def _value(value: StringMatch, *, is_lax: bool) -> str:
    """Of a header: of several values any, where that is what harms."""
    if isinstance(value, Presence):
        return _ANY
    if not is_lax:
        return _text(value, _ANY)
    match value:
        case Exact(text):
            return rf"(?:{_ANY},)?[ \t]*{re.escape(text)}[ \t]*(?:,{_ANY})?"
        case Prefix(text):
            return rf"(?:{_ANY},)?[ \t]*{re.escape(text)}{_ANY}"
        case Suffix(text):
            return rf"{_ANY}{re.escape(text)}[ \t]*(?:,{_ANY})?"


def _claim(way: Iterable[str], value: StringMatch) -> Predicate:
    """A text, or one in a list."""
    wanted = value_pb2.ValueMatcher(string_match=_matcher(value))
    either = value_pb2.ValueMatcher(
        or_match=value_pb2.OrMatcher(
            value_matchers=[
                wanted,
                value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=wanted)),
            ]
        )
    )
    return matchers.metadata(names.TOKENS, (names.CLAIMS, *way), either)


def _request_principal(value: StringMatch) -> Predicate:
    """`iss/sub`: wherever the slash between them may be in the text."""

    def both(issuer: StringMatch, subject: StringMatch) -> Predicate:
        return matchers.all_of([_single_claim("iss", issuer), _single_claim("sub", subject)])

    match value:
        case Exact(text):
            return matchers.any_of(both(Exact(a), Exact(b)) for a, b in _divided(text) if a and b)
        case Prefix(text):
            longer = both(Prefix(text), Presence()) if text else both(Presence(), Presence())
            return matchers.any_of(
                [longer, *(both(Exact(a), Prefix(b) if b else Presence()) for a, b in _divided(text) if a)]
            )
        case Suffix(text):
            return matchers.any_of(
                [
                    both(Presence(), Suffix(text)),
                    *(both(Suffix(a) if a else Presence(), Exact(b)) for a, b in _divided(text) if b),
                ]
            )
        case Presence():
            return both(Presence(), Presence())


def _single_claim(name: str, value: StringMatch) -> Predicate:
    wanted = value_pb2.ValueMatcher(string_match=_matcher(value))
    return matchers.metadata(names.TOKENS, (names.CLAIMS, name), wanted)


def _divided(text: str) -> Iterator[tuple[str, str]]:
    for index, character in enumerate(text):
        if character == "/":
            yield text[:index], text[index + 1 :]


def _matcher(value: StringMatch) -> AnyMessage:
    match value:
        case Exact(text):
            return string_pb2.StringMatcher(exact=text)
        case Prefix(text):
            return string_pb2.StringMatcher(prefix=text)
        case Suffix(text):
            return string_pb2.StringMatcher(suffix=text)
        case Presence():
            return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=r"\C+"))
