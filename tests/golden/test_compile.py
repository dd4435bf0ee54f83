"""API objects to the mesh model, as files a person can review.

`compile/<case>/in.yaml` starts with one line that says what the case shows; `model.yaml` is what nodes and L7 proxies
are told and statuses are to say, and `findings.yaml` what users are told. With a `then.yaml` (objects applied
afterwards; one with `deleted: true` goes) `moved.yaml` lists what that second batch must move, and by being a list also
what it must not. With a `mesh.yaml` the mesh has these settings.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ambit.ingest.mesh import Change, MeshCompiler, MeshDelta
from ambit.ingest.mesh_settings.mesh_config import mesh_config
from ambit.ingest.settings import MeshSettings
from ambit.objects.decoding import PROJECTIONS
from tests.golden.readable import to_yaml

CASES = sorted(path for path in (Path(__file__).parent / "compile").iterdir() if path.is_dir())
RESOURCES = {projection.kind: resource for resource, projection in PROJECTIONS.items()}
INPUTS = {"in.yaml", "then.yaml", "mesh.yaml"}


class Loader(yaml.SafeLoader):
    """Times stay text, as in JSON."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def change(given: dict[str, Any]) -> Change:
    resource = RESOURCES[given["kind"]]
    if PROJECTIONS[resource].namespaced:
        given["metadata"].setdefault("namespace", "default")
    value = PROJECTIONS[resource].decode(json.dumps(given).encode())
    return Change(resource, value.metadata.key, None if given.get("deleted") else value)


def changes(path: Path) -> list[Change]:
    return [change(each) for each in yaml.load_all(path.read_text(), Loader) if each]


def moved(delta: MeshDelta) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "authorizations": delta.authorizations,
        "services": delta.services,
        "workloads": delta.workloads,
        "findings": delta.findings,
        "proxies": delta.proxies,
        "routes": delta.routes,
        "statuses": delta.statuses,
    }
    return {
        name: {"upserts": sorted(part.upserts), "removals": sorted(part.removals)}
        for name, part in parts.items()
        if part
    }


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_compile(case: Path, request: pytest.FixtureRequest) -> None:
    assert (case / "in.yaml").read_text().startswith("# "), "the first line says what the case shows"
    settings = case / "mesh.yaml"
    said = mesh_config(settings.read_text() if settings.exists() else "", "mesh.yaml")
    compiler = MeshCompiler(MeshSettings(entry_visibility=said.entry_visibility))
    compiler.apply(changes(case / "in.yaml"))
    model = {
        name: made
        for name, made in (
            ("authorizations", compiler.authorizations),
            ("services", compiler.services),
            ("workloads", compiler.workloads),
            ("proxies", compiler.proxies),
            ("routes", compiler.routes),
            ("statuses", compiler.statuses),
        )
        if made
    }
    outputs = {
        "model.yaml": to_yaml(model),
        "findings.yaml": to_yaml([str(each) for each in compiler.findings]),
    }
    if (case / "then.yaml").exists():
        outputs["moved.yaml"] = to_yaml(moved(compiler.apply(changes(case / "then.yaml"))))
    if request.config.getoption("--update-golden"):
        for name, text in outputs.items():
            (case / name).write_text(text)
    for name, text in outputs.items():
        assert (case / name).read_text() == text, f"{case.name}/{name}: review it with --update-golden"
    assert {path.name for path in case.iterdir()} <= {*outputs, *INPUTS}, "a file that no test reads"
