"""Objects as people write them, as an API server keeps them. Pure.

A Secret's `stringData` is for writing only: it becomes part of `data`, in base64, and of one name it is the one that
counts (Kubernetes API reference, Secret v1).
"""

from base64 import b64encode
from typing import Any


def kept(kind: str, group: str, value: dict[str, Any]) -> dict[str, Any]:
    """An object of a kind and group. Raises ValueError naming a field that an API server would refuse."""
    if (kind, group) == ("Secret", "") and "stringData" in value:
        rest = {name: each for name, each in value.items() if name != "stringData"}
        return {**rest, "data": {**(value.get("data") or {}), **_encoded(value["stringData"] or {})}}
    return value


def _encoded(plain: Any) -> dict[str, str]:
    """Nothing of a Secret is in what is raised but names."""
    if not isinstance(plain, dict):
        raise ValueError("stringData is no map")  # noqa: TRY004 - of a text that somebody wrote, not of our code
    wrong = [str(name) for name, text in plain.items() if not isinstance(text, str | None)]
    if wrong:
        raise ValueError(f"stringData.{wrong[0]} is no text: put it into quotes")
    return {str(name): b64encode((text or "").encode()).decode() for name, text in plain.items()}
