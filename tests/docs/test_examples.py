"""Every example is applied by a test of the mesh, and by the mesh's own parsers it is what it says."""

from pathlib import Path

import yaml

from tests.mesh.test_gateway import SAMPLES as GATEWAYS
from tests.mesh.test_samples import SAMPLES

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_example_is_applied_by_a_test() -> None:
    found = {path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*.yaml")}
    assert found == {Path("istio", f"{name}.yaml") for name in (*SAMPLES, *GATEWAYS)}


def test_every_object_has_a_kind_and_a_name() -> None:
    for path in EXAMPLES.rglob("*.yaml"):
        for value in filter(None, yaml.safe_load_all(path.read_text())):
            assert value["apiVersion"] and value["kind"] and value["metadata"]["name"]
