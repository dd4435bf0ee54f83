"""The pod runner against the real API server and the real network of one node."""

from pathlib import Path

import pytest

from tests.local.pods.inside import MODES, in_namespaces

SCENARIOS = (
    "life",
    "enrolment",
    "failures",
    "adoption",
    "interrupted",
    "lost_sandbox",
    "private_paths",
    "termination",
)

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pods(tmp_path: Path, scenario: str, mode: str) -> None:
    in_namespaces(f"tests.local.pods.cluster:{scenario}", tmp_path, mode)
