"""The ways a connection can take, through real Envoys: tunnel, same node, plain; addresses and bytes intact."""

import pytest

from tests.plan.dataplane.conftest import Mesh

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


def test_across_nodes_with_the_source_address_kept(mesh: Mesh) -> None:
    a, far = mesh.pods["a"], mesh.pods["far"]
    with far.listen(8080):
        assert a.ask(far.four, 8080) == f"{a.four} 2"
        assert a.ask(far.six, 8080) == f"{a.six} 2"
    assert not [each.rejections for each in mesh.agents.values() if each.rejections]


def test_on_the_same_node(mesh: Mesh) -> None:
    a, near = mesh.pods["a"], mesh.pods["near"]
    with near.listen(8080):
        assert a.ask(near.four, 8080) == f"{a.four} 2"
        assert a.ask(near.six, 8080) == f"{a.six} 2"
