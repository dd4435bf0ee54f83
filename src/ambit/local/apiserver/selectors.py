"""Label and field selectors of list, watch and deletecollection requests.

Label grammar: apimachinery `labels.Parse`. Field selectors know only `=`, `==` and `!=`.
"""

import re
from collections.abc import Callable, Mapping

from ambit.core.selector import Requirement
from ambit.local.apiserver.failures import bad_request

_SET = re.compile(r"^\s*([^\s!=,()<>]+)\s+(in|notin)\s*\(([^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([^\s!=,()<>]+)\s*(==|!=|=)\s*([^\s=,()]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s!=,()<>]+)\s*$")
_COMPARE = re.compile(r"^\s*([^\s!=,()<>]+)\s*([<>])\s*(-?\d+)\s*$")

LabelTest = Callable[[Mapping[str, str]], bool]


def _split(text: str) -> list[str]:
    """Splits at commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def _label_test(part: str) -> LabelTest:
    if match := _SET.match(part):
        values = tuple(value.strip() for value in match[3].split(","))
        return Requirement(match[1], "In" if match[2] == "in" else "NotIn", values).matches
    if match := _EQUAL.match(part):
        return Requirement(match[1], "NotIn" if match[2] == "!=" else "In", (match[3],)).matches
    if match := _COMPARE.match(part):
        key, operator, bound = match[1], match[2], int(match[3])

        def compare(labels: Mapping[str, str]) -> bool:
            value = labels.get(key, "")
            if not re.fullmatch(r"-?\d+", value):
                return False
            return int(value) > bound if operator == ">" else int(value) < bound

        return compare
    if match := _EXISTS.match(part):
        return Requirement(match[2], "DoesNotExist" if match[1] else "Exists").matches
    raise bad_request(f"unable to parse requirement: found {part.strip()!r}, expected a label selector")


def parse_labels(text: str) -> LabelTest | None:
    """The test for a `labelSelector` parameter; None when it selects everything. Raises ApiFailure 400."""
    tests = [_label_test(part) for part in _split(text)]
    if not tests:
        return None
    return lambda labels: all(test(labels) for test in tests)


class FieldTest:
    """A parsed `fieldSelector`: conditions on fields that the resource declares selectable."""

    def __init__(self, terms: list[tuple[str, bool, str]]) -> None:
        self.terms = terms

    def __call__(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(key, "") == value) is equal for key, equal, value in self.terms)

    def exact(self, field: str) -> str | None:
        """The value that `field` must have, when the selector says so."""
        return next((value for key, equal, value in self.terms if equal and key == field), None)


def parse_fields(text: str, known: frozenset[str]) -> FieldTest | None:
    """The test for a `fieldSelector` parameter. Raises ApiFailure 400 for fields not in `known`."""
    terms = []
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.match(r"^\s*([^\s!=]+)\s*(==|!=|=)\s*(.*?)\s*$", part)
        if match is None:
            raise bad_request(f"invalid field selector: {part!r}; can't understand it")
        if match[1] not in known:
            raise bad_request(f"field label not supported: {match[1]}")
        terms.append((match[1], match[2] != "!=", match[3].replace("\\,", ",").replace("\\=", "=")))
    return FieldTest(terms) if terms else None


def exact_name(text: str) -> str:
    """The only name that a `fieldSelector` parameter lets through; "" when it lets several."""
    match = re.search(r"(?:^|,)\s*metadata\.name\s*==?\s*([^,\s]+)\s*(?:,|$)", text)
    return match[1] if match else ""
