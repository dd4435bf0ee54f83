"""What README.md and the beginnings of pages tell a newcomer to type works as it is written."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
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
        subprocess.run([ambit, "down"], env=prepared, check=True, capture_output=True, timeout=110)


def first_block(page: str, heading: str) -> str:
    """The first lines to type below a heading."""
    section = (ROOT / page).read_text().split(f"## {heading}\n")[1]
    (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[:1]
    return block


@pytest.mark.timeout(400)
def test_your_own_mesh(environment: dict[str, str]) -> None:
    setup, *lines = first_block("README.md", "Your own mesh").splitlines()
    assert setup.startswith("./dev setup")
    # `-f` follows for ever; a newcomer looks at it until the request of a moment ago is there.
    seen = "until ambit flows | grep -q 'default/curl-.*productpage'; do :; done; ambit flows"
    script = "\n".join(line.replace("ambit flows -f", seen) for line in lines)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Simple Bookstore App" in done.stdout
    assert re.search(r"default/curl-\S+ \(default/curl\) → default/productpage-\S+ .* ALLOWED", done.stdout)
    assert re.search(r"^127\.0\.0\.1:\d+$", done.stdout, re.MULTILINE)
    assert "Status check results are √" in done.stdout
    assert "is gone" in done.stderr


@pytest.mark.timeout(400)
def test_policy_waypoints_and_tokens_in_short(environment: dict[str, str]) -> None:
    """One after the other in one cluster; some of the lines fail, as they say."""
    seen = {
        "ambit flows -n shop --denied": "until {} | grep -q 'DENIED by shop/ratings'; do :; done; {}",
        "ambit flows -n shop --requests": "until {} | grep -q '→ shop/reviews-v'; do :; done; {}",
    }
    script = "ambit up --nodes 2\nexport KUBECONFIG=$(ambit local kubeconfig --path)\n"
    for page in ("docs/policy.md", "docs/waypoints.md", "docs/tokens.md"):
        block = first_block(page, "In short")
        # Which answer comes is said behind the line; a policy is in force a moment after it was applied.
        block = re.sub(
            r"^(ask\b.*?) +# (\d+).*$",
            r"until \1 | tee /dev/stderr | grep -q \2; do :; done",
            block,
            flags=re.MULTILINE,
        )
        for line, until in seen.items():
            block = block.replace(line, until.format(line, line))
        script += f"{block}\nkubectl delete namespace shop\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    said = f"{done.stdout}\n{done.stderr}"
    assert re.findall(r"^[Ee]rror.*|.*not found.*", done.stderr, re.MULTILINE) == [], said
    assert re.search(r"terminated with exit code (52|56)", done.stderr), said
    assert "DENIED by shop/ratings: no rule allows it" in done.stdout, said
    assert "here cluster.local/ns/shop/sa/curl" in done.stdout, said
    assert re.search(r"^90 % to shop/reviews-v1:9080: allowed$", done.stdout, re.MULTILINE), said
    assert "Simple Bookstore App" in done.stdout, said
    codes = [code for code, _ in groupby(re.findall(r"^(\d{3})$", done.stderr, re.MULTILINE))]
    assert codes[-3:] == ["403", "401", "200"], said
    assert "allowed" in done.stdout.rpartition("httpbin")[0] + done.stdout.rpartition("httpbin")[2], said
