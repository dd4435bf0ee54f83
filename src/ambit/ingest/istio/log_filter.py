"""Whether a text is an expression of CEL that Envoy takes as the filter of an access log. Pure.

Envoy refuses a whole listener for one filter that it cannot read, so none gets there that is not of this grammar: a
part of CEL's (github.com/google/cel-spec, "Syntax"), with the attributes and functions that Envoy has
("Attributes").
"""

import re

LONGEST = 2_000
_DEEPEST = 20
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>0x[0-9a-fA-F]+u?|\d+\.\d+(?:[eE][+-]?\d+)?|\d+u?)
    |(?P<text>"(?:[^"\\\n]|\\[nrt"'\\])*"|'(?:[^'\\\n]|\\[nrt"'\\])*')
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>\|\||&&|[=!<>]=|[-+*/%<>!?:.,()\[\]])
    )""",
    re.VERBOSE,
)
_ATTRIBUTES = frozenset(
    {
        *("request", "response", "source", "destination", "connection", "upstream", "metadata"),
        *("filter_state", "plugin_name", "xds"),
    }
)
_CONSTANTS = frozenset({"true", "false", "null"})
_FUNCTIONS = {"has": 1, "size": 1}
_METHODS = {"startsWith": 1, "endsWith": 1, "contains": 1, "matches": 1, "size": 0}
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})


class Unreadable(ValueError):
    """Says what is wrong with an expression."""


def check(text: str) -> None:
    """Raises Unreadable."""
    if len(text) > LONGEST:
        raise Unreadable(f"it is longer than {LONGEST} characters")
    _Reader(_tokens(text)).whole()


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"{text[position : position + 10].strip()!r} is no part of an expression")
        kind = match.lastgroup or ""
        found.append((kind, match[kind]))
        position = match.end()
    return found


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> None:
        self._expression()
        if self._at < len(self._tokens):
            raise Unreadable(f"{self._next!r} comes too much")

    @property
    def _next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> bool:
        kind = self._tokens[self._at][0] if self._at < len(self._tokens) else ""
        if self._next in wanted and kind in ("sign", "name"):
            self._at += 1
            return True
        return False

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise Unreadable(f"{wanted!r} is missing before {self._next or 'the end'!r}")

    def _expression(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Unreadable(f"it is deeper than {_DEEPEST} levels")
        self._either()
        if self._take("?"):
            self._expression()
            self._need(":")
            self._expression()
        self._depth -= 1

    def _either(self) -> None:
        """Of operators that follow one another precedence decides what it means, not whether it can be read."""
        self._unary()
        while self._take("||", "&&", *_RELATIONS, "+", "-", "*", "/", "%"):
            self._unary()

    def _unary(self) -> None:
        while self._take("!", "-"):
            pass
        self._member()

    def _member(self) -> None:
        self._primary()
        while True:
            if self._take("."):
                name = self._name()
                if self._take("("):
                    self._arguments(name, _METHODS)
            elif self._take("["):
                self._expression()
                self._need("]")
            else:
                return

    def _primary(self) -> None:
        kind, value = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind in ("number", "text"):
            self._at += 1
        elif self._take("("):
            self._expression()
            self._need(")")
        elif self._take("["):
            self._list("]")
        elif kind == "name":
            self._at += 1
            if self._take("("):
                self._arguments(value, _FUNCTIONS)
            elif value not in _ATTRIBUTES | _CONSTANTS:
                raise Unreadable(f"there is no {value!r}; there are {', '.join(sorted(_ATTRIBUTES))}")
        else:
            raise Unreadable(f"a value is missing before {value or 'the end'!r}")

    def _name(self) -> str:
        kind, value = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind != "name":
            raise Unreadable(f"a name is missing before {value or 'the end'!r}")
        self._at += 1
        return value

    def _arguments(self, name: str, known: dict[str, int]) -> None:
        if name not in known:
            raise Unreadable(f"there is no {name}(); there are {', '.join(sorted(known))}")
        count = self._list(")")
        if count != known[name]:
            raise Unreadable(f"{name}() takes {known[name]} values, not {count}")

    def _list(self, end: str) -> int:
        count = 0
        while not self._take(end):
            if count:
                self._need(",")
            self._expression()
            count += 1
        return count
