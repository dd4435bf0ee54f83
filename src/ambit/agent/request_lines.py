"""Lines about requests as Envoy tells them (`ambit.envoy.logs.request_lines`), to be printed. Pure."""

from collections.abc import Iterator

import msgspec

from ambit.agent.log_texts import texts
from ambit.envoy.logs.access_log import UNKNOWN
from ambit.envoy.logs.request_log import LINE


def printed(message: bytes) -> Iterator[str]:
    """The lines of one message from Envoy; what is not one of ours is left out."""
    for _, text in texts(message):
        told, _, rest = text.partition(LINE)
        if not told:
            yield rest
        elif (line := _members(told, rest)) is not None:
            yield line


def _members(told: str, rest: str) -> str | None:
    """An object; what is not known is null, as Envoy writes it."""
    try:
        names = msgspec.json.decode(told, type=list[str])
    except msgspec.MsgspecError:
        return None
    values = rest.split(LINE)
    if len(values) != len(names):
        return None
    found = {name: _value(value) for name, value in zip(names, values, strict=True)}
    return msgspec.json.encode(found).decode()


def _value(text: str) -> str | int | None:
    if text == UNKNOWN:
        return None
    return int(text) if text.isdecimal() and len(text) < 16 else text
