"""Plugins and options of the test suite."""

import gc
import os
import signal
from collections.abc import Generator
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from ambit.testing.aftermath import end_after_death
from tests import soak
from tests.kubectl.program import find_kubectl

# Time limits per example, and for making some, fail on a busy machine; every test has one of its own.
_UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples each time: who has changed nothing that is tested hears nothing new.
settings.register_profile("ambit", derandomize=True, **_UNHURRIED)
# Others each time, also with `--hypothesis-profile explore`.
settings.register_profile("explore", derandomize=False, **_UNHURRIED)
settings.load_profile("ambit")

pytest_plugins = ["ambit.testing.plugin", "tests.features"]

KUBECTL = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")
    parser.addoption("--soak", action="store_true", help="tests marked `soak` in their long form, for hours")


def pytest_configure(config: pytest.Config) -> None:
    """A test run that is told to end takes its clusters down, as after Ctrl-C."""
    if config.option.soak:
        soak.begin()
        settings.load_profile("explore")
    signal.signal(signal.SIGTERM, _end)


def _end(_signal: int, _frame: FrameType | None) -> None:
    """Once: who ends a whole group of processes, one of which passes it on, tells us twice."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected lives as long as the session: looking through it again and again for garbage took a third of
    the collection's time, and some of every test's."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """A kubectl is looked for (and perhaps built, which no test's time limit allows for) only when tests need it."""
    needed = any(item.get_closest_marker("kubectl") for item in session.items)
    if needed and not session.config.option.collectonly:
        session.config.stash[KUBECTL] = find_kubectl()


@pytest.fixture(scope="session")
def kubectl_program(pytestconfig: pytest.Config) -> str | None:
    return pytestconfig.stash.get(KUBECTL, None)


@pytest.fixture(scope="session", autouse=True)
def nothing_outlives_a_killed_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Envoys are in sessions of their own, and those of agents have no parent."""
    if any(item.get_closest_marker("envoy") for item in request.session.items):
        end_after_death(tmp_path_factory.getbasetemp())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without kubectl its tests are not run, and say so; in CI that is a failure. Tests that make network namespaces
    on the host itself need root; the laptop cluster's do not."""
    if os.geteuid() != 0 and item.get_closest_marker("netns") and not item.get_closest_marker("rootless"):
        pytest.skip("needs root: type `sudo ./dev test -m netns`")
    if item.get_closest_marker("kubectl") and item.config.stash.get(KUBECTL, None) is None:
        reason = "no kubectl: not in $KUBECTL, not in PATH, and no `go` to build it"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
