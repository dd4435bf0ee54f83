"""Plugins and options of the test suite."""

import pytest

pytest_plugins = ["ambit.testing.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")
