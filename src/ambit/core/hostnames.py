"""Host names with wildcards, as listeners and routes have them: `*` is any, `*.example.com` any number of labels before
`.example.com` (Gateway API `Hostname`)."""

from collections.abc import Iterator

ANY = "*"


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
