"""Status conditions of API objects as dictionaries."""

from collections.abc import Mapping
from typing import Any


def has_condition(value: Mapping[str, Any], kind: str) -> bool:
    """Whether the object's status condition of that type is True."""
    conditions = (value.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == kind and each.get("status") == "True" for each in conditions)
