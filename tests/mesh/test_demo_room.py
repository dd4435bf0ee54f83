"""`ambit demo` replaces a former demo, never somebody's own instance."""

import pytest

from ambit.testing.laptop import LaptopMesh

pytestmark = [pytest.mark.mesh, pytest.mark.laptop_only("the demo starts a laptop cluster")]


def test_an_instance_that_is_no_demo_stays(laptop: LaptopMesh) -> None:
    refused = laptop.ambit("demo", check=False)
    assert refused.returncode == 2
    assert "is not a demo" in refused.stderr
    assert "ambit down" in refused.stderr
    assert laptop.ambit("local", "kubeconfig", "--path").returncode == 0
