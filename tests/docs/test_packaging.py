"""A wheel holds everything that runs, and runs from nothing but what it holds."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip lays it into site-packages."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", os.fspath(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=280)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site")
    return directory / "site"


def test_every_file_of_the_package_is_in_it(unpacked: Path) -> None:
    source = ROOT / "src"
    wanted = {
        path.relative_to(source)
        for path in (source / "ambit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {path.relative_to(unpacked) for path in (unpacked / "ambit").rglob("*") if path.is_file()}
    added = {path for path in found if path.parts[1] in {"charts", "examples"}}
    assert found - added == wanted
    assert Path("ambit/py.typed") in wanted and Path("ambit/local/system.yaml") in wanted


def test_it_has_the_samples_and_the_licences(unpacked: Path) -> None:
    samples = ROOT / "examples/istio"
    assert _files(unpacked / "ambit/examples/istio") == _files(samples)
    (licences,) = unpacked.glob("*.dist-info/licenses")
    assert {path.name for path in licences.iterdir()} == {"LICENSE", "NOTICE"}


def _files(directory: Path) -> dict[Path, bytes]:
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_it_has_the_charts(unpacked: Path) -> None:
    for path in (ROOT / "charts").rglob("*"):
        relative = path.relative_to(ROOT)
        if path.is_file() and relative.parts[:3] != ("charts", "ambit", "charts"):
            assert (unpacked / "ambit" / relative).read_bytes() == path.read_bytes()


def test_it_runs_without_the_source_tree(unpacked: Path) -> None:
    program = (
        "import ambit; from ambit.cli.demo.manifests import manifest; from ambit.cli.main import ambit as group;"
        "print(ambit.__file__, len(manifest('bookinfo')), len(group.list_commands(None)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.fspath(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=unpacked, check=True, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    where, objects, commands = done.stdout.split()
    assert Path(where).is_relative_to(unpacked)
    assert int(objects) > 10 and int(commands) > 10
