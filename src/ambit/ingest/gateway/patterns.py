"""Durations and expressions in routes."""

import re

import re2

_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def milliseconds(text: str) -> int | None:
    """A duration as the Gateway API writes them (GEP-2257: `1h30m`, `250ms`); None when it is none."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text))


def problem_of_expression(text: str) -> str:
    """Why Envoy could not use a regular expression; empty when it can. The judge is RE2, as there."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return ""
