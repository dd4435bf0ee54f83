"""Which entry of a table a request meets: the meaning of `ambit.model.http`, whoever carries it out. Pure."""

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

import msgspec

from ambit.model.expressions import is_whole_match
from ambit.model.http import Entry, Host, NamedMatch, PathKind, PathMatch, RequestMatch


class Asked(msgspec.Struct, frozen=True):
    """A request: `host` without port, `path` with its query, names of headers in lower case; `source_namespace` of the
    identity that the caller proved."""

    method: str = "GET"
    host: str = ""
    path: str = "/"
    headers: Mapping[str, str] = {}
    source_namespace: str = ""


def met(hosts: Iterable[Host], asked: Asked) -> Entry | None:
    """The entry that decides; None when none matches, which is answered with 404."""
    fitting = [(rank, host) for host in hosts if (rank := _fits(host, asked.host)) is not None]
    if not fitting:
        return None
    _, host = max(fitting, key=lambda each: each[0])
    return next((entry for entry in host.entries if matches(entry.match, asked)), None)


def matches(match: RequestMatch, asked: Asked) -> bool:
    """Whether all parts of it hold."""
    path, _, query = asked.path.partition("?")
    if match.source_namespaces and asked.source_namespace not in match.source_namespaces:
        return False
    if match.method and match.method != asked.method:
        return False
    if match.path is not None and not _path(match.path, path):
        return False
    headers = {**asked.headers, "host": asked.host}
    # Of a parameter that is given more than once the first counts.
    queries = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    return all(_is(each, headers.get(each.name)) for each in match.headers) and all(
        _is(each, queries.get(each.name)) for each in match.queries
    )


def _fits(host: Host, name: str) -> int | None:
    """How well; None not at all. Exact names go before longer suffixes, those before shorter ones, before any."""
    ranks = [
        len(domain) + 1_000 * (domain == name)
        for domain in host.domains
        if domain in ("*", name) or (domain.startswith("*.") and name.endswith(domain[1:]))
    ]
    return max(ranks, default=None)


def _path(match: PathMatch, path: str) -> bool:
    match match.kind:
        case PathKind.EXACT:
            return path == match.value
        case PathKind.PREFIX:
            prefix = match.value.rstrip("/")
            return path == prefix or path.startswith(f"{prefix}/")
        case PathKind.REGEX:
            return is_whole_match(match.value, path)


def _is(match: NamedMatch, value: str | None) -> bool:
    if value is None:
        return False
    return is_whole_match(match.value, value) if match.is_regex else value == match.value
