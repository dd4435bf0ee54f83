"""Finding selectors by labels without walking all of them.

A selector is filed under one of its pairs (the first by key), in its namespace. An object looks at the
entries of its own pairs and checks what it finds there. So a new selector wakes only the objects that
carry that pair.
"""

from collections.abc import Mapping
from sys import intern


def selector_entry(namespace: str, match_labels: Mapping[str, str]) -> str:
    """Where a non-empty selector is filed. Raises ValueError for an empty one, which is filed nowhere."""
    key = min(match_labels)
    return intern(f"{namespace}/{key}={match_labels[key]}")


def label_entries(namespace: str, labels: Mapping[str, str]) -> list[str]:
    """Every entry under which a selector for these labels can be filed."""
    return [intern(f"{namespace}/{key}={value}") for key, value in labels.items()]


def selects(match_labels: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """`matchLabels` semantics: every pair present; an empty selector selects everything."""
    return match_labels.items() <= labels.items()
