"""Predicates of Envoy's matching API, with constants folded away.

A predicate is True, False, or a message; so a caller that already knows an answer just returns it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from envoy.config.core.v3 import address_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.common_inputs.ssl.v3 import ssl_inputs_pb2
from envoy.extensions.matching.input_matchers.consistent_hashing.v3 import consistent_hashing_pb2
from envoy.extensions.matching.input_matchers.ip.v3 import ip_pb2
from envoy.extensions.matching.input_matchers.metadata.v3 import metadata_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf.wrappers_pb2 import StringValue
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2, regex_pb2, string_pb2

from ambit.core.address import Address, Network
from ambit.envoy.words import pack, uint32

_List = matcher_pb2.Matcher.MatcherList
Predicate = Any
_LONGEST = 16_384
"""Characters of one regular expression: Envoy refuses a very long one (seen: 1 MB; half of it was taken)."""
"""True, False or a `Matcher.MatcherList.Predicate`."""


def all_of(predicates: Iterable[Predicate]) -> Predicate:
    return _combine(predicates, neutral=True)


def any_of(predicates: Iterable[Predicate]) -> Predicate:
    return _combine(predicates, neutral=False)


def alternatives(patterns: Iterable[str]) -> Iterator[str]:
    """Regular expressions of bounded length that together match what any of `patterns` does."""
    gathered: list[str] = []
    length = 0
    for pattern in patterns:
        if gathered and length + len(pattern) > _LONGEST:
            yield "|".join(gathered)
            gathered, length = [], 0
        gathered.append(f"(?:{pattern})")
        length += len(pattern) + 5
    if gathered:
        yield "|".join(gathered)


def none_of(words: Iterable[str]) -> str:
    """A regular expression (RE2, which has no negation) that as a whole matches every text but these."""
    tails: dict[str, list[str]] = {}
    others = True
    for word in words:
        if word:
            tails.setdefault(word[0], []).append(word[1:])
        else:
            others = False
    if not tails:
        return "(?s:.*)" if others else "(?s:.+)"
    known = "".join(map(re.escape, sorted(tails)))
    parts = [f"(?s:[^{known}].*)", *(re.escape(first) + none_of(tails[first]) for first in sorted(tails))]
    return f"(?:{'|'.join(parts)})" + ("?" if others else "")


def negated(predicate: Predicate) -> Predicate:
    if isinstance(predicate, bool):
        return not predicate
    return _List.Predicate(not_matcher=predicate)


def source_in(networks: Iterable[Network]) -> Predicate:
    """The peer's address (on plaintext and HBONE alike: the client pod's) is in one of `networks`."""
    return _single(network_inputs_pb2.SourceIPInput(), custom_match=_networks(networks))


def destination_in(networks: Iterable[Network]) -> Predicate:
    """The connection's original destination address is in one of `networks`."""
    return _single(network_inputs_pb2.DestinationIPInput(), custom_match=_networks(networks))


def destination_port(port: int) -> Predicate:
    """The connection's original destination port."""
    return _single(
        network_inputs_pb2.DestinationPortInput(), value_match=string_pb2.StringMatcher(exact=str(port))
    )


def authority(pattern: str) -> Predicate:
    """The whole `:authority` of a CONNECT matches this RE2 pattern."""
    return _single(
        http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":authority"), value_match=_regex(pattern)
    )


def authority_port(port: int) -> Predicate:
    """The `:authority` of a CONNECT ends with this port. No expression: a pod may have a thousand rules about ports,
    and Envoy compiles each expression at each change."""
    return _single(
        http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":authority"),
        value_match=string_pb2.StringMatcher(suffix=f":{port}"),
    )


def peer_identity(pattern: str) -> Predicate:
    """The whole SPIFFE URI of the peer's certificate matches this RE2 pattern."""
    return _single(ssl_inputs_pb2.UriSanInput(), value_match=_regex(pattern))


def server_name(pattern: str) -> Predicate:
    """The whole name in the client's hello matches this RE2 pattern; false without a name."""
    return _single(network_inputs_pb2.ServerNameInput(), value_match=_regex(pattern))


def server_name_below(suffix: str) -> Predicate:
    """The name in the client's hello ends with this, and is longer."""
    return _single(
        network_inputs_pb2.ServerNameInput(),
        value_match=string_pb2.StringMatcher(suffix=suffix, ignore_case=True),
    )


def filter_state(key: str, pattern: str) -> Predicate:
    """The whole object of this key on the connection matches this RE2 pattern."""
    return _single(network_inputs_pb2.FilterStateInput(key=key), value_match=_regex(pattern))


def filter_state_in(key: str, networks: Iterable[Network]) -> Predicate:
    """The address that the object of this key on the connection says is in one of `networks`."""
    return _single(network_inputs_pb2.FilterStateInput(key=key), custom_match=_networks(networks))


def header(name: str, pattern: str) -> Predicate:
    """The whole header, several values joined by commas, matches this RE2 pattern; false without the header."""
    source = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=name)
    return _single(source, value_match=_regex(pattern))


def metadata(namespace: str, way: Iterable[str], value: Any) -> Predicate:
    """The metadata there has a value that this `envoy.type.matcher.v3.ValueMatcher` matches."""
    source = network_inputs_pb2.DynamicMetadataInput(
        filter=namespace,
        path=[network_inputs_pb2.DynamicMetadataInput.PathSegment(key=each) for each in way],
    )
    return _single(
        source,
        custom_match=extension_pb2.TypedExtensionConfig(
            name="envoy.matching.matchers.metadata_matcher",
            typed_config=pack(metadata_pb2.Metadata(value=value)),
        ),
    )


def first_match(rows: Iterable[tuple[Predicate, Any]], otherwise: Any) -> Any:
    """A matcher that takes the action (see `action`) of the first predicate that holds."""
    matchers = []
    for predicate, taken in rows:
        if predicate is True:
            otherwise = taken
            break
        if predicate is not False:
            matchers.append(_List.FieldMatcher(predicate=predicate, on_match=taken))
    matcher = matcher_pb2.Matcher(on_no_match=otherwise)
    if matchers:
        matcher.matcher_list.CopyFrom(_List(matchers=matchers))
    return matcher


def destination_among(destinations: Iterable[tuple[Address, int]], taken: Any, otherwise: Any) -> Any:
    """Takes `taken` for these original destinations, found by hash: there can be thousands."""
    return by_destination(dict.fromkeys(destinations, taken), otherwise)


def by_destination(rows: Mapping[tuple[Address, int], Any], otherwise: Any) -> Any:
    """Takes what `rows` has for the original destination, found by hash."""
    ports: dict[str, dict[str, Any]] = {}
    for (address, port), taken in sorted(rows.items(), key=lambda row: (str(row[0][0]), row[0][1])):
        ports.setdefault(str(address), {})[str(port)] = taken
    if not ports:
        return otherwise
    tree = _by_value(
        network_inputs_pb2.DestinationIPInput(),
        {
            address: matcher_pb2.Matcher.OnMatch(
                matcher=_by_value(network_inputs_pb2.DestinationPortInput(), found, otherwise)
            )
            for address, found in ports.items()
        },
        otherwise,
    )
    return matcher_pb2.Matcher.OnMatch(matcher=tree)


def by_share(key: str, taken: Sequence[Any]) -> Any:
    """Takes one of these, by a hash of the connection's object of this key; the first where there is none."""
    source, whole = network_inputs_pb2.FilterStateInput(key=key), len(taken)
    rows = [(_hashed(source, least, whole), taken[least]) for least in range(whole - 1, 0, -1)]
    return nested(first_match(rows, taken[0]))


def share(parts: int, whole: int, taken: Any, otherwise: Any) -> Any:
    """Takes `taken` for this share of connections, by a hash of the client's port."""
    if parts >= whole:
        return taken
    predicate = _hashed(network_inputs_pb2.SourcePortInput(), whole - parts, whole)
    return matcher_pb2.Matcher.OnMatch(matcher=first_match([(predicate, taken)], otherwise))


def _hashed(source: Any, least: int, whole: int) -> Predicate:
    """A hash of it, of `whole` values, is `least` or more."""
    hashing = consistent_hashing_pb2.ConsistentHashing(threshold=least, modulo=whole)
    return _single(
        source,
        custom_match=extension_pb2.TypedExtensionConfig(
            name="envoy.matching.matchers.consistent_hashing", typed_config=pack(hashing)
        ),
    )


def _by_value(source: Any, rows: Mapping[str, Any], otherwise: Any) -> Any:
    tree = matcher_pb2.Matcher.MatcherTree(
        input=extension_pb2.TypedExtensionConfig(name=source.DESCRIPTOR.name, typed_config=pack(source))
    )
    for value, taken in rows.items():
        tree.exact_match_map.map[value].CopyFrom(taken)
    return matcher_pb2.Matcher(matcher_tree=tree, on_no_match=otherwise)


def action(name: str, message: Any) -> Any:
    return matcher_pb2.Matcher.OnMatch(
        action=extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
    )


def nested(matcher: Any) -> Any:
    """What this matcher takes."""
    return matcher_pb2.Matcher.OnMatch(matcher=matcher)


def filter_chain(name: str) -> Any:
    """The action of a listener's matcher: this chain."""
    return action(name, StringValue(value=name))


def _combine(predicates: Iterable[Predicate], *, neutral: bool) -> Predicate:
    kept = []
    for each in predicates:
        if isinstance(each, bool):
            if each is not neutral:
                return each
        else:
            kept.append(each)
    if not kept:
        return neutral
    if len(kept) == 1:
        return kept[0]
    several = _List.Predicate.PredicateList(predicate=kept)
    return _List.Predicate(and_matcher=several) if neutral else _List.Predicate(or_matcher=several)


def _single(source: Any, **match: Any) -> Predicate:
    return _List.Predicate(
        single_predicate=_List.Predicate.SinglePredicate(
            input=extension_pb2.TypedExtensionConfig(name=source.DESCRIPTOR.name, typed_config=pack(source)),
            **match,
        )
    )


def _networks(networks: Iterable[Network]) -> Any:
    ranges = [
        address_pb2.CidrRange(address_prefix=str(each.network_address), prefix_len=uint32(each.prefixlen))
        for each in networks
    ]
    matcher = ip_pb2.Ip(cidr_ranges=ranges, stat_prefix="networks")
    return extension_pb2.TypedExtensionConfig(name="envoy.matching.matchers.ip", typed_config=pack(matcher))


def _regex(pattern: str) -> Any:
    engine = regex_pb2.RegexMatcher.GoogleRE2()
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(google_re2=engine, regex=pattern))
