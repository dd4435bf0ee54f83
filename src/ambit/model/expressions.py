"""Regular expressions of API objects: RE2 over bytes, as Envoy compiles them."""

import re2


def problem_of_expression(text: str) -> str:
    """Why Envoy rejects this regular expression, as a whole as it is sent; empty when Envoy takes it."""
    try:
        _compile(text)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    return ""


def is_whole_match(expression: str, text: str) -> bool:
    """Whether all of `text` matches, as Envoy evaluates it."""
    return _compile(expression).fullmatch(text.encode()) is not None


def _compile(expression: str) -> "re2._Regexp[bytes]":
    options = re2.Options()
    options.log_errors = False
    # Envoy 1.40 does so: `\x{100}` is too large for it, and `.` is a byte.
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(expression.encode(), options)
