"""Every example is applied by a test of the mesh, and by the mesh's own parsers it is what it says."""

from pathlib import Path

import yaml

from tests.docs.test_samples import ROWS
from tests.mesh.test_samples import SAMPLES

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_example_is_applied_by_a_test() -> None:
    assert {path.stem for path in (EXAMPLES / "istio").glob("*.yaml")} == set(SAMPLES)
    applied = "".join((EXAMPLES.parent / file).read_text() for file in dict(ROWS))
    deeper = [path.stem for path in (EXAMPLES / "istio").glob("*/**/*.yaml")]
    assert deeper
    assert [name for name in deeper if name.removeprefix("route-") not in applied] == []


def test_every_object_has_a_kind_and_a_name() -> None:
    for path in EXAMPLES.rglob("*.yaml"):
        for value in filter(None, yaml.safe_load_all(path.read_text())):
            assert value["apiVersion"] and value["kind"] and value["metadata"]["name"]
