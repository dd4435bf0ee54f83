"""The whole image, built from a Debian mirror and the package index, and run from its root file system."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from image.__main__ import CACHE
from image.build import ROLES, SAMPLES, Built, build
from image.interpreter import PACKAGES, PYTHON
from image.samples import entries

from ambit import __version__
from ambit.core.names import SYSTEM_ROOTS

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
NAME = "localhost/ambit:dev"
IMPORT_ALL = """
import ambit, importlib, pkgutil
names = [each.name for each in pkgutil.walk_packages(ambit.__path__, "ambit.")]
for name in names:
    if not name.endswith("__main__") and not name.startswith("ambit.testing"):
        importlib.import_module(name)
print(len(names))
"""

Run = Callable[[Sequence[str]], str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("archives")
    return build(folder / "ambit.tar", folder / "samples.tar", NAME, CACHE)


def runner(built: Built, layers: Sequence[str], root: Path) -> Run:
    """Runs programs with the layers as their root, as a container runtime lays them over each other."""
    for name in layers:
        with tarfile.open(built.layers[name].path) as layer:
            layer.extractall(root, filter="tar")

    def run(command: Sequence[str]) -> str:
        isolated = ["unshare", "--user", "--map-root-user", "chroot", os.fspath(root), *command]
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin"}
        done = subprocess.run(
            isolated, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def ambit_image(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runner(built, ROLES, tmp_path_factory.mktemp("ambit"))


@pytest.fixture(scope="module")
def sample_image(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runner(built, SAMPLES, tmp_path_factory.mktemp("samples"))


def test_the_command_runs(ambit_image: Run) -> None:
    assert __version__ in ambit_image(["ambit", "version"])


def test_every_module_can_be_imported(ambit_image: Run) -> None:
    assert int(ambit_image([PYTHON, "-c", IMPORT_ALL])) > 300


def test_envoy_and_nft_find_their_libraries(ambit_image: Run) -> None:
    assert "/1.40.0/" in ambit_image([f"{PACKAGES}/envoy/_bin/envoy", "--version"])
    assert "nftables" in ambit_image(["nft", "--version"])


def test_public_authorities_are_known(ambit_image: Run) -> None:
    """To the control plane, which fetches keys by https, and to proxies."""
    program = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(ambit_image([PYTHON, "-c", program])) > 100
    count = f"print(open({SYSTEM_ROOTS!r}).read().count('BEGIN CERTIFICATE'))"
    assert int(ambit_image([PYTHON, "-c", count])) > 100


def test_byte_code_is_used_and_complete(ambit_image: Run) -> None:
    program = "import ambit.cli.main as m, envoy.type.v3.http_pb2 as p; print(m.__cached__, p.__cached__)"
    for path in ambit_image([PYTHON, "-c", program]).split():
        assert path.startswith(f"{PACKAGES}/") and path.endswith(".pyc")
        ambit_image([PYTHON, "-c", f"open({path!r}).close()"])


def test_there_is_no_shell_and_no_package_manager(built: Built) -> None:
    programs = set[str]()
    for name in ROLES:
        with tarfile.open(built.layers[name].path) as layer:
            programs |= {each.name for each in layer if Path(each.name).parent.name in ("bin", "sbin")}
    assert programs == {"usr/bin/python3", "usr/bin/python3.11", "usr/sbin/nft", "usr/local/bin/ambit"}


def test_samples_have_a_shell_curl_and_their_services(sample_image: Run) -> None:
    assert sample_image(["sh", "-c", "sleep 0 && echo well"]) == "well\n"
    assert sample_image(["curl", "--version"]).startswith("curl ")
    entry = entries(["registry.istio.io/release/examples-bookinfo-details-v1:1.20.3"]).popitem()[1]
    python, *options, program, service = entry.command
    only_imported = program.replace("main()", f"print({service!r}, main.__module__)")
    assert "details ambit.local.samples.bookinfo" in sample_image([python, *options, only_imported])


def test_built_again_elsewhere_it_has_the_same_digest(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without a network: what the first build downloaded is there."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    shutil.copytree(CACHE / "apt", tmp_path / "apt")
    again = build(tmp_path / "ambit.tar", tmp_path / "samples.tar", NAME, tmp_path, fresh=True)
    assert {name: layer.digest for name, layer in again.layers.items()} == {
        name: layer.digest for name, layer in built.layers.items()
    }
    assert again.digest == built.digest
