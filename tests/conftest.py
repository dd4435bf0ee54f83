"""Plugins and options of the test suite."""

import pytest
from hypothesis import settings

# Time limits per example fail on a busy machine; every test has one of its own.
settings.register_profile("ambit", deadline=None)
settings.load_profile("ambit")

pytest_plugins = ["ambit.testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")
