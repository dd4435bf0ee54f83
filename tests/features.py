"""The marker `feature("F44", …)`: which promise of `features.toml` a test proves.

Each id is a marker of its own as well, so `pytest -k F44` and, exactly, `pytest -m F44` choose its tests.
"""

import tomllib
from pathlib import Path

import pytest

FEATURES: dict[str, str] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
"""What each means, by id."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(id, …): proves these rows of docs/features.md")
    for name, text in FEATURES.items():
        config.addinivalue_line("markers", f"{name}: {text}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Raises UsageError where an id is unknown or none is given."""
    for marker in item.iter_markers("feature"):
        if not marker.args or marker.kwargs:
            raise pytest.UsageError(f'{item.nodeid}: feature needs the ids that it proves: feature("F44")')
        for name in marker.args:
            if name not in FEATURES:
                raise pytest.UsageError(f"{item.nodeid}: {name!r} is no feature of tests/features.toml")
            item.add_marker(name)
