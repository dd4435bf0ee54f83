"""Two nodes with a real Envoy each, as for the tests of the data path."""

from tests.plan.dataplane.conftest import mesh, network, outside, running, way

__all__ = ["mesh", "network", "outside", "running", "way"]
