"""What README.md tells a newcomer to type works as it is written."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("types what the README says of the laptop"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(kubectl_program: str) -> Iterator[dict[str, str]]:
    """`ambit` and `kubectl` in PATH, a state directory of its own, nothing that runs afterwards."""
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        programs = Path(root, "bin")
        programs.mkdir()
        (programs / "kubectl").symlink_to(kubectl_program)
        ambit = programs / "ambit"
        ambit.write_text(f'#!/bin/sh\nexec {sys.executable} -m ambit "$@"\n')
        ambit.chmod(0o755)
        given = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        prepared = {
            **given,
            "AMBIT_STATE": root,
            "PATH": f"{programs}:{given['PATH']}",
            "PYTHONPATH": os.fspath(ROOT / "src"),
        }
        yield prepared
        subprocess.run([ambit, "down"], env=prepared, check=True, capture_output=True, timeout=60)


def test_your_own_mesh(environment: dict[str, str]) -> None:
    section = (ROOT / "README.md").read_text().split("## Your own mesh")[1]
    (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[:1]
    setup, *lines = block.splitlines()
    assert setup.startswith("./dev setup")
    # `-f` follows for ever; a newcomer looks at it until the request of a moment ago is there.
    seen = "until ambit flows | grep -q 'default/curl-.*productpage'; do :; done; ambit flows"
    script = "\n".join(line.replace("ambit flows -f", seen) for line in lines)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Simple Bookstore App" in done.stdout
    assert re.search(r"default/curl-\S+ \(default/curl\) → default/productpage-\S+ .* ALLOWED", done.stdout)
    assert re.search(r"^127\.0\.0\.1:\d+$", done.stdout, re.MULTILINE)
    assert "Status check results are √" in done.stdout
    assert "is gone" in done.stderr
