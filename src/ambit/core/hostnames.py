"""What a host name is, and host names with wildcards, as listeners and routes have them: `*` is any, `*.example.com`
any number of labels before `.example.com` (Gateway API `Hostname`)."""

import re
from collections.abc import Iterator

ANY = "*"
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_LAST = rf"(?!([0-9]+|0x[0-9a-f]*)\.?\Z){_LABEL}"
"""Not a number: resolvers read `127.1` and `0x7f000001` as addresses (WHATWG URL, "ends in a number")."""
_NAME = re.compile(rf"({_LABEL}\.)*{_LAST}\.?", re.IGNORECASE)


def is_name(text: str) -> bool:
    """Whether this can be the name of one host (RFC 1123, and `_`): no wildcard, no IP address in any spelling."""
    return len(text) <= 253 and _NAME.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Whether this is such a name, perhaps with `*` as its first label, or `*` alone."""
    return text == ANY or is_name(text.removeprefix("*."))


def covers(pattern: str, name: str) -> bool:
    """Whether every host that `name` stands for is one that `pattern` stands for."""
    if pattern in (ANY, name):
        return True
    return pattern.startswith("*.") and name.endswith(pattern[1:]) and len(name) >= len(pattern)


def covering(name: str) -> Iterator[str]:
    """All patterns that cover `name`, the most specific first."""
    yield name
    rest = name.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if name != ANY:
        yield ANY


def common(one: str, other: str) -> str | None:
    """What two patterns have in common: always one of them, or nothing."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def by_precision(pattern: str) -> tuple[bool, int]:
    """Sorts the most specific first: exact names, then long ones (Gateway API `HTTPRouteSpec.hostnames`)."""
    return (pattern.startswith(ANY), -len(pattern))
