"""Which spellings of a path a policy's path means, as RE2 expressions for whole paths (without query).

A path has been normalised before (RFC 3986: dots, escapes of unreserved characters), and servers read what is left in
different ways: several slashes as one, escaped slashes and backslashes as slashes, escapes undone twice, parameters
after `;` dropped, and what is behind an escaped `?` or `#`. Whoever sends a request chooses the spelling, so every
reading counts that would harm:

- `lax`, for what denies: whatever any server may read as the path;
- `strict`, for what allows: the path as it is written, unless a server may read it as another one (`Strict.unless`).
"""

import re

import msgspec

from ambit.model.policy import Exact, Prefix, Presence, StringMatch, Suffix
from ambit.model.request_policy import PathTemplate

PathValue = StringMatch | PathTemplate
_ESCAPE = "%(?:25)*"
"""Begins an escape, however often the escape was escaped."""
_SEPARATOR = rf"(?:[/\\]|{_ESCAPE}(?:2[fF]|5[cC]))"
_PARAMETERS = rf"(?:(?:;|{_ESCAPE}3[bB])[^/?]*)?"
_SLASH = f"(?:{_PARAMETERS}{_SEPARATOR})+"
_REST = "[^?]*"
_QUERY = rf"{_ESCAPE}(?:3[fF]|23)"
_END = rf"{_PARAMETERS}(?:{_QUERY}{_REST})?"
"""Behind a path: what some servers take for its parameters, query or fragment."""
_DOTS = rf"{_SEPARATOR}(?:\.|{_ESCAPE}2[eE]){{1,2}}{_PARAMETERS}(?:(?:{_SEPARATOR}|{_QUERY}){_REST})?"
MISLEADING = rf"{_REST}(?:{_DOTS}|{_ESCAPE}00{_REST})"
"""Paths that lead elsewhere for some servers: dots between what only some read as slashes, or an escaped zero. They
are every path that is denied, and none that is allowed."""
_OTHER_END = rf"{_REST}(?:(?:;|{_ESCAPE}3[bB])[^/?]*|{_QUERY}{_REST})"
"""Paths whose end some servers take away."""
_OTHER_SEGMENTS = rf"{_REST}(?:\\|{_ESCAPE}(?:2[fF]|5[cC]|3[bBfF]|23)){_REST}"
"""Paths that some servers divide otherwise."""
_ONE, _ANY = "{*}", "{**}"


class Strict(msgspec.Struct, frozen=True):
    """`path` matches, and none of `unless`."""

    path: str
    unless: tuple[str, ...] = ()


def lax(value: PathValue) -> str:
    """What may be read as a path that `value` means; `MISLEADING` beside it."""
    match value:
        case Exact(text):
            return _spelled(text) + _END
        case Prefix(text):
            return _spelled(text) + _REST
        case Suffix(text):
            return _REST + _spelled(text) + _END
        case Presence():
            return _REST
        case PathTemplate(text):
            parts = (
                _REST if each == _ANY else "[^/?]+" if each == _ONE else _spelled(each)
                for each in _pieces(text)
            )
            return "".join(parts) + _END


def strict(value: PathValue) -> Strict:
    """What is read as a path that `value` means by every server."""
    match value:
        case Exact(text):
            return Strict(re.escape(text))
        case Prefix(text):
            return Strict(re.escape(text) + _REST, (MISLEADING,))
        case Suffix(text):
            return Strict(_REST + re.escape(text), (MISLEADING, _OTHER_END))
        case Presence():
            return Strict(_REST)
        case PathTemplate(text):
            parts = (
                _REST if each == _ANY else "[^/?;][^/?]*" if each == _ONE else re.escape(each)
                for each in _pieces(text)
            )
            return Strict("".join(parts), (MISLEADING, _OTHER_SEGMENTS))


def _pieces(template: str) -> list[str]:
    return [each for each in re.split(r"(\{\*\*?\})", template) if each]


def _spelled(text: str) -> str:
    """Every spelling of a text. Other than ASCII is escaped in requests."""
    return "".join(_character(each) for each in text)


def _character(character: str) -> str:
    if character == "/":
        return _SLASH
    escaped = "".join(f"{_ESCAPE}{_digits(each)}" for each in character.encode())
    return f"(?:{re.escape(character)}|{escaped})"


def _digits(byte: int) -> str:
    return "".join(f"[{each}{each.upper()}]" if each.isalpha() else each for each in f"{byte:02x}")
