"""Values as plain YAML data: only what differs from its default, enums by name, fields in order of definition."""

from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec
import yaml


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def readable(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        fields = {
            field.name: readable(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if field.required or getattr(value, field.name) != _default(field)
        }
        return ({str(tag): fields.get("value", True)}) if tag else fields
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {key: readable(each) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [readable(each) for each in value]
    if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        return str(value)
    return value


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def to_yaml(value: Any) -> str:
    return yaml.dump(readable(value), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
