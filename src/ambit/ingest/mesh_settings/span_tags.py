"""Tags of spans as Istio writes them (`customTags`). Envoy refuses a whole listener for one that it cannot read."""

import re
from collections.abc import Mapping

import msgspec

from ambit.ingest.mesh_settings.log_format import unknown_operator
from ambit.model.http_bounds import PLAIN_NAME
from ambit.model.tracing import SpanTag, TagSource
from ambit.objects.telemetry import CustomTag

_HEADER = re.compile(f":?{PLAIN_NAME.pattern}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r"[^\x00\r\n]+")


class BadTag(ValueError):
    """Says what is wrong; `path` is below `customTags`."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


def span_tags(given: Mapping[str, CustomTag]) -> tuple[SpanTag, ...]:
    """In order of their names. Raises BadTag."""
    return tuple(_tag(name, tag) for name, tag in sorted(given.items()))


def _tag(name: str, given: CustomTag) -> SpanTag:
    if not _TEXT.fullmatch(name):
        raise BadTag(repr(name), "a tag needs a name")
    if sum(each is not None for each in msgspec.structs.astuple(given)) != 1:
        raise BadTag(name, "a tag has one of literal, environment, header and formatter")
    if given.literal is not None and _TEXT.fullmatch(given.literal.value):
        return SpanTag(name, TagSource.LITERAL, given.literal.value)
    if given.environment is not None and _VARIABLE.fullmatch(given.environment.name):
        found = given.environment
        return SpanTag(name, TagSource.ENVIRONMENT, found.name, found.default_value)
    if given.header is not None and _HEADER.fullmatch(given.header.name):
        return SpanTag(name, TagSource.HEADER, given.header.name.lower(), given.header.default_value)
    if given.formatter is not None and _TEXT.fullmatch(given.formatter.value):
        operator = unknown_operator(given.formatter.value)
        if not operator:
            return SpanTag(name, TagSource.FORMAT, given.formatter.value)
        raise BadTag(f"{name}.formatter.value", f"{operator!r} is no operator of Envoy's that is known")
    raise BadTag(name, "the value is empty, or names nothing that a request or a proxy has")
