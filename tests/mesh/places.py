"""Where nodes are: each in a region and zone of its own, for a while."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from ambit.testing.mesh import Mesh

_LABELS = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


@contextmanager
def nodes_in_places(mesh: Mesh) -> Iterator[None]:
    """The first two nodes are in `region-of-NODE` and `zone-of-NODE`."""
    nodes = mesh.nodes[:2]
    before = {node: {key: _labels(mesh, node).get(key) for key in _LABELS} for node in nodes}
    try:
        for node in nodes:
            given = (f"{key}={key.partition('/')[2]}-of-{node}" for key in _LABELS)
            mesh.kubectl("label", "node", node, "--overwrite", *given)
        yield
    finally:
        for node, former in before.items():
            back = (f"{key}={value}" if value else f"{key}-" for key, value in former.items())
            mesh.kubectl("label", "node", node, "--overwrite", *back)


def _labels(mesh: Mesh, node: str) -> dict[str, str]:
    found = json.loads(mesh.kubectl("get", "node", node, "-o", "json").stdout)
    return dict(found["metadata"].get("labels", {}))
