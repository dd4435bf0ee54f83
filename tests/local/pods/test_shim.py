"""Sandboxes without a cluster: as root, and as one user in a user namespace."""

from pathlib import Path

import pytest

from tests.local.pods.inside import MODES, in_namespaces

pytestmark = [pytest.mark.netns, pytest.mark.rootless]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "scenario", ["isolation", "lifecycle", "execution", "privileged", "survival", "memory_volume"]
)
def test_sandbox(tmp_path: Path, scenario: str, mode: str) -> None:
    in_namespaces(f"tests.local.pods.shims:{scenario}", tmp_path, mode)
