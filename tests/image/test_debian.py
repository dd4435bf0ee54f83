import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image.debian import Apt, Package, closure, parse_packages, unpack

from ambit.core.errors import EnvironmentProblem

SHOWN = """\
Package: python3.11
Version: 3.11.2-6
Multi-Arch: allowed
Depends: libc6 (>= 2.34), media-types | mime-support, libpython3.11:any (= 3.11.2-6)
Pre-Depends: awk
SHA256: 4fac
Description-en: Interactive language
 Depends: not this line

Package: busybox-static
Version: 1:1.35.0
SHA256: 3d3f
"""


def package(name: str, *needs: tuple[str, ...]) -> Package:
    return Package(name, "1", "00", needs)


def names(roots: Sequence[str], *packages: Package, left_out: frozenset[str] = frozenset()) -> list[str]:
    known = {each.name: each for each in packages}
    found = closure(roots, lambda wanted: [known[name] for name in wanted if name in known], left_out)
    return [each.name for each in found]


def test_what_apt_shows() -> None:
    assert parse_packages(SHOWN) == [
        Package(
            "python3.11", "3.11.2-6", "4fac",
            (("awk",), ("libc6",), ("media-types", "mime-support"), ("libpython3.11",)),
        ),
        Package("busybox-static", "1:1.35.0", "3d3f"),
    ]  # fmt: skip


def test_the_first_alternative_is_taken_unless_another_is_there() -> None:
    types, mime = package("media-types"), package("mime-support")
    python = package("python", ("media-types", "mime-support"))
    assert names(["python"], python, types, mime) == ["media-types", "python"]
    assert names(["python", "mime-support"], python, types, mime) == ["mime-support", "python"]


def test_what_is_left_out_is_not_followed() -> None:
    packages = (
        package("curl", ("debconf", "debconf-2.0"), ("libc",)),
        package("libc"),
        package("debconf", ("perl",)),
    )
    assert names(["curl"], *packages, left_out=frozenset({"debconf"})) == ["curl", "libc"]


def test_a_package_that_does_not_exist_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match="no package gone"):
        names(["curl"], package("curl", ("gone",)))


@given(st.lists(st.lists(st.integers(0, 8), max_size=4), min_size=9, max_size=9))
def test_everything_needed_is_there_and_nothing_else(edges: list[list[int]]) -> None:
    packages = [package(f"p{index}", *((f"p{need}",) for need in needs)) for index, needs in enumerate(edges)]
    reached, todo = set[int](), [0]
    while todo:
        index = todo.pop()
        if index not in reached:
            reached.add(index)
            todo += edges[index]
    assert names(["p0"], *packages) == [f"p{index}" for index in sorted(reached)]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb: not a Debian system")
def test_files_are_merged_below_usr_and_what_nobody_uses_is_left_out(tmp_path: Path) -> None:
    content = {
        "DEBIAN/control": "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n",
        "lib/x86_64-linux-gnu/libthing.so.1.0": "library",
        "bin/thing": "program",
        "usr/share/doc/thing/copyright": "licence",
        "usr/share/doc/thing/README": "text",
        "usr/share/man/man1/thing.1": "manual",
        "etc/thing.conf": "setting",
    }
    for name, text in content.items():
        file = tmp_path / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "source/bin/thing").chmod(0o4755)
    (tmp_path / "source/lib/x86_64-linux-gnu/libthing.so.1").symlink_to("libthing.so.1.0")
    archive = tmp_path / "thing.deb"
    build = ["dpkg-deb", "--build", "--root-owner-group", f"{tmp_path}/source", f"{archive}"]
    subprocess.run(build, check=True, capture_output=True)
    root = tmp_path / "root"
    root.mkdir()
    unpack({package("thing"): archive}, root)
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "usr/lib/x86_64-linux-gnu/libthing.so.1.0",
        "usr/lib/x86_64-linux-gnu/libthing.so.1",
        "usr/bin/thing",
        "usr/share/doc/thing/copyright",
        "etc/thing.conf",
        "var/lib/dpkg/status.d/thing",
    }
    assert (root / "bin").is_symlink() and (root / "bin/thing").read_text() == "program"
    assert (root / "usr/bin/thing").stat().st_mode & 0o7777 == 0o755
    assert (root / "lib/x86_64-linux-gnu/libthing.so.1").read_text() == "library"
    assert "Version: 1\n" in (root / "var/lib/dpkg/status.d/thing").read_text()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb: not a Debian system")
def test_no_link_leads_out_of_the_image(tmp_path: Path) -> None:
    outside, root, source = tmp_path / "outside", tmp_path / "root", tmp_path / "source"
    for folder in (outside, root, source / "DEBIAN", source / "srv/data"):
        folder.mkdir(parents=True)
    (outside / "file").write_text("the machine's own")
    control = "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    (source / "DEBIAN/control").write_text(control)
    (source / "srv/data/file").write_text("the package's")
    archive = tmp_path / "thing.deb"
    build = ["dpkg-deb", "--build", "--root-owner-group", f"{source}", f"{archive}"]
    subprocess.run(build, check=True, capture_output=True)

    # What another package may have left: a link in the place of the file, then one in the place of its folder.
    (root / "srv/data").mkdir(parents=True)
    (root / "srv/data/file").symlink_to(outside / "file")
    unpack({package("thing"): archive}, root)
    assert (root / "srv/data/file").read_text() == "the package's"
    assert (outside / "file").read_text() == "the machine's own"
    shutil.rmtree(root)
    (root / "srv").mkdir(parents=True)
    (root / "srv/data").symlink_to(outside)
    with pytest.raises(EnvironmentProblem, match=r"/srv/data.* leads out of the image"):
        unpack({package("thing"): archive}, root)
    assert (outside / "file").read_text() == "the machine's own"


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="apt-get was not found"):
        Apt(tmp_path, "amd64")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get: not a Debian system")
def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIT_DEBIAN_MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(EnvironmentProblem, match="apt-get update failed") as raised:
        Apt(tmp_path, "amd64").update()
    assert "http://127.0.0.1:9 must be reachable" in raised.value.hint
