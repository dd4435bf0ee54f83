"""Fields that are null, as an API server has them: absent, so that defaults apply. Pure.

Go's JSON leaves a field as it was when its value is null. Most objects come from an API server that has dropped its
nulls, so nothing is looked for until an object does not decode.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")


def without_nulls(value: Any) -> Any:
    """A copy without the members of objects that are null; a null in a list stays, and is an error later."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def make_decoder(of: type[_T]) -> Callable[[bytes], _T]:
    """A function from an object's JSON to `of`, for which null is absent. It raises `msgspec.MsgspecError`."""
    decoder = msgspec.json.Decoder(of)

    def decode(data: bytes) -> _T:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError:
            return decoder.decode(msgspec.json.encode(without_nulls(msgspec.json.decode(data))))

    return decode
