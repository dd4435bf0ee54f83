"""Paths of an instance."""

import uuid
from pathlib import Path

from ambit.local.layout import StateDirectory


def test_a_pods_log_directory_can_be_made_whatever_its_name(tmp_path: Path) -> None:
    state = StateDirectory.of("x", {"AMBIT_STATE": str(tmp_path)})
    one, other = (state.pod_logs("n" * 63, "p" * 253, str(uuid.uuid4())) for _ in range(2))
    assert one != other
    one.mkdir(parents=True)
    assert state.pod_logs("default", "web-0", "u").name == "default_web-0_u"
