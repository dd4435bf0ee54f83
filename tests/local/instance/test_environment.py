"""Machines that cannot carry an instance: one sentence with the fix, a non-zero exit code, nothing left behind."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.core.errors import EnvironmentProblem
from ambit.local.instance.end import supervisors
from ambit.local.instance.preflight import check_space
from ambit.local.layout import StateDirectory

pytestmark = pytest.mark.rootless

UP = [sys.executable, "-m", "ambit", "up", "--name", "x", "--nodes", "1", "--timeout", "120"]
UNPRIVILEGED = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ambit-") as path:
        yield Path(path)


def refused(root: Path, command: list[str], **environment: str) -> tuple[int, str]:
    """Run it, and require that it leaves neither a file nor a process and says one line and a hint."""
    done = subprocess.run(
        command,
        env={**os.environ, "AMBIT_STATE": os.fspath(root), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode not in (0, 130), done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(root) == []
    assert supervisors(StateDirectory(root / "x")) == []
    problem, _, hint = done.stderr.rpartition("\n\nhint: ")
    assert problem.splitlines()[-1].startswith("error: "), done.stderr
    assert len(hint.strip().splitlines()) == 1
    return done.returncode, done.stderr


def inside(script: str, *words: str, user: bool = False) -> list[str]:
    """`words` in namespaces of their own that `script` prepared as root of them."""
    enter = (
        ["unshare", "--user", "--map-root-user", "--mount"]
        if os.geteuid() != 0 or user
        else ["unshare", "-m"]
    )
    return [*enter, "sh", "-ec", f'{script}\nexec "$@"', "sh", *words]


@pytest.mark.netns
def test_without_nft(root: Path) -> None:
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert nft is not None
    hide = f"mount --bind /dev/null {os.path.realpath(nft)}"
    _, said = refused(root, inside(hide, *UP))
    assert "this machine has no `nft`" in said
    assert "apt-get install nftables" in said


@pytest.mark.netns
def test_user_namespaces_used_up(root: Path) -> None:
    limit = "echo 1 >/proc/sys/user/max_user_namespaces"
    _, said = refused(root, inside(limit, *UNPRIVILEGED, *UP, user=True))
    assert "sudo sysctl -w user.max_user_namespaces=15000" in said


@pytest.mark.netns
def test_root_without_capabilities(root: Path) -> None:
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    _, said = refused(root, inside("true", *drop, *UP, user=True))
    assert "root lacks CAP_SYS_ADMIN" in said


def test_without_envoy(root: Path) -> None:
    _, said = refused(root, UP, AMBIT_ENVOY="/nonexistent/envoy")
    assert "/nonexistent/envoy is not an executable file" in said


def test_port_in_use(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(root, [*UP, "--api-port", str(port)])
    assert code == 2
    assert f"port {port} on 127.0.0.1 is in use" in said


@pytest.mark.netns
@pytest.mark.parametrize("size", ["64k", "2m"])
def test_disk_full_before_the_start(root: Path, size: str) -> None:
    _, said = refused(root, inside(f"mount -t tmpfs -o size={size} none {root}", *UP))
    assert f"no space left on the disk that holds {root}" in said


@pytest.mark.netns
def test_disk_full_while_it_starts(root: Path) -> None:
    started = f"until [ -e {root}/x/instance.json ]; do :; done"
    fill = f"({started}; head -c 40m /dev/zero >{root}/filled 2>/dev/null) &"
    fill = f"mount -t tmpfs -o size=33m none {root}\n{fill}"
    _, said = refused(root, inside(fill, *UP))
    assert f"no space left on the disk that holds {root}" in said


def test_free_space_is_what_the_user_gets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_space(root / "not" / "yet" / "there")
    monkeypatch.setattr("ambit.local.instance.preflight.NEEDED_SPACE", 1 << 60)
    with pytest.raises(EnvironmentProblem, match="no space left"):
        check_space(root)


@pytest.mark.netns
def test_unwritable_state_directory(root: Path) -> None:
    readonly = f"mount -t tmpfs -o ro none {root}"
    _, said = refused(root, inside(readonly, *UP))
    assert "cannot write the state directory" in said
    assert "set AMBIT_STATE" in said


def test_state_directory_is_a_file(root: Path) -> None:
    occupied = root / "f"
    occupied.write_text("")
    done = subprocess.run(
        UP,
        env={**os.environ, "AMBIT_STATE": os.fspath(occupied)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "hint: set AMBIT_STATE" in done.stderr
    assert "Traceback" not in done.stderr


def test_path_too_long_for_sockets(root: Path) -> None:
    code, said = refused(root, UP, AMBIT_STATE=os.fspath(root / ("d" * 90)))
    assert code == 2
    assert "set AMBIT_STATE to a shorter path" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read the kubeconfig"),
        (b"", "is empty"),
        (b"[1, 2]", "is no object"),
        (b"\x00\xff", "is not YAML"),
        (b"a: [", "is not YAML"),
        (b"a: 1", "has no current-context"),
        (b"current-context: c\ncontexts: 7", "has no context named 'c'"),
        (b"current-context: c\ncontexts: [{name: c, context: 5}]", "has no context named 'c'"),
    ],
)
def test_wrong_kubeconfig(root: Path, content: bytes | None, expected: str) -> None:
    file = root / "config"
    if content is not None:
        file.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "ambit", "ps", "--kubeconfig", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.split("\n\nhint: ")[0].splitlines()) == 1


def test_unreachable_server(root: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        config = (
            "{current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: "
            f'{{server: "https://127.0.0.1:{closed.getsockname()[1]}"}}}}]}}'
        )
        (root / "config").write_text(config)
        command = [sys.executable, "-m", "ambit", "ps", "--kubeconfig", root / "config"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "cannot reach the API server at 127.0.0.1:" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's pods run with that user's rights")
def test_an_interpreter_that_only_root_may_read_is_named(root: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    venv.chmod(0o700)
    packages = os.pathsep.join(path for path in sys.path if path)
    _, said = refused(root, [str(venv / "bin/python"), *UP[1:]], PYTHONPATH=packages)
    assert f"pods cannot read {venv}," in said
    assert f"type `chmod -R o+rX {venv}`" in said
