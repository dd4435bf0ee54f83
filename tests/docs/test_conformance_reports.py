"""The conformance suite's reports in docs/conformance: whole, and about what the compiler claims now."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ambit.ingest.gateway.features import FEATURES, Place
from tests.conformance import echo, reports, runs

FOLDER = Path(__file__).parents[2] / "docs/conformance"
CORE = {"Gateway", "ReferenceGrant", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"}
UNCOUNTED = {"GRPCRouteNamedRouteRule"}
"""The suite knows it, and no profile of it counts it."""
BY_CHANNEL = [(channel, mode) for channel in ("standard", "experimental") for mode in runs.PROFILES]


def report(channel: str, mode: str) -> str:
    (path,) = FOLDER.glob(f"{channel}-*-{mode}-report.yaml")
    return path.read_text()


def named(profiles: list[dict[str, Any]], key: str) -> set[str]:
    return {name for each in profiles for name in each.get("extended", {}).get(key) or ()}


@pytest.mark.feature("F123")
@pytest.mark.parametrize(("channel", "mode"), BY_CHANNEL)
def test_every_profile_passed(channel: str, mode: str) -> None:
    text = report(channel, mode)
    told = yaml.safe_load(text)
    assert reports.succeeded(text)
    assert (told["gatewayAPIChannel"], told["gatewayAPIVersion"]) == (channel, echo.version())
    assert {each["name"] for each in told["profiles"]} == set(runs.PROFILES[mode])


@pytest.mark.feature("F123")
@pytest.mark.parametrize("channel", ["standard", "experimental"])
def test_the_suite_knows_every_feature_that_is_claimed(channel: str) -> None:
    """By the suite's name for it: one that it does not know would be claimed for nothing."""
    profiles = yaml.safe_load(report(channel, "gateway"))["profiles"]
    ours = [each for each in FEATURES if Place.GATEWAY in each.places and each.name not in CORE | UNCOUNTED]
    needing = {each.name for each in ours if each.experimental}
    all_claimed = {each.name for each in ours}
    assert named(profiles, "supportedFeatures") - CORE == (
        all_claimed - needing if channel == "standard" else all_claimed
    )
    assert named(profiles, "unsupportedFeatures") == (needing if channel == "standard" else set())
