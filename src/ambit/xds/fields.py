"""Checked conversions that the messages of the workload API share. All raise ValueError naming the field."""

import ipaddress
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf import message

from ambit.core.address import Address

E = TypeVar("E", bound=IntEnum)
M = TypeVar("M", bound=message.Message)


def parse(kind: type[M], data: bytes) -> M:
    """A message of this kind."""
    try:
        return kind.FromString(data)
    except message.DecodeError as error:
        raise ValueError(f"not a {kind.DESCRIPTOR.full_name}: {error}") from None


def enum(kind: type[E], number: int, field: str) -> E:
    """A known number of an enumeration."""
    try:
        return kind(number)
    except ValueError:
        raise ValueError(f"{field}: {number} is not a known {kind.__name__}") from None


def address(data: bytes, field: str) -> Address:
    """An address of 4 or 16 bytes."""
    if len(data) == 4:
        return ipaddress.IPv4Address(data)
    if len(data) == 16:
        return ipaddress.IPv6Address(data)
    raise ValueError(f"{field}: an address has 4 or 16 bytes, not {len(data)}")


def port(number: int, field: str) -> int:
    """A port that fits 16 bits."""
    if number > 0xFFFF:
        raise ValueError(f"{field}: {number} is not a port")
    return number


def ports(numbers: Iterable[int], field: str) -> tuple[int, ...]:
    return tuple(port(number, field) for number in numbers)


def number(value: IntEnum) -> Any:
    """An enumeration's number, as generated messages take it (their stubs want their own classes)."""
    return int(value)
