"""The interpreter's copy: it runs where there is nothing else, and is replaced in one step."""

import json
import os
import platform
import struct
import subprocess
from pathlib import Path

import pytest

from ambit.core.errors import AmbitError, EnvironmentProblem
from ambit.node.cni.launcher import launcher
from ambit.node.cni.runtime import File, Installed, collect, digest, elf_interpreter, version

X86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs a program of this machine type")
AARCH64_CODE = (
    "e30340f9 e26f238b 42400091 002080d2 0008a0f2 011c80d2 "
    "0108a0f2 a81b80d2 010000d4 e00f80d2 a80b80d2 010000d4"
)
"""Run in an emulator (Unicorn 2): `execve` of the path with the arguments, and the environment that was given."""


@X86_64
def test_the_launcher_gives_its_own_arguments_and_the_environment(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(launcher(["/bin/sh", "-c", 'echo "$0|$1|$VALUE|$#"', "a b", "c"], "x86_64"))
    program.chmod(0o755)
    done = subprocess.run([program, "ignored"], env={"VALUE": "v"}, capture_output=True, check=True)
    assert done.stdout == b"a b|c|v|1\n"


@X86_64
def test_a_launcher_without_its_program_fails(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(launcher([str(tmp_path / "gone")], "x86_64"))
    program.chmod(0o755)
    assert subprocess.run([program], check=False).returncode == 127


def test_the_launcher_for_aarch64_is_what_was_run_in_an_emulator() -> None:
    program = launcher(["/bin/echo", "hello", "two words"], "aarch64")
    start = struct.unpack_from("<Q", program, 24)[0] - 0x400000
    code = bytes.fromhex(AARCH64_CODE.replace(" ", ""))
    assert program[start : start + len(code)] == code
    assert struct.unpack_from("<H", program, 18) == (183,)


def test_other_machines_are_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="riscv64"):
        launcher(["/bin/true"], "riscv64")


def test_the_copy_is_small_and_has_what_the_plugin_imports() -> None:
    files = collect()
    assert {"bin/python3", "loader", "plugin.pyc", "shared/libc.so.6"} <= set(files)
    names = {Path(path).stem for path in files if path.startswith("lib/")}
    assert {"socket", "os"} <= names
    assert not {"asyncio", "ssl", "msgspec", "server", "typing"} & names
    assert sum(len(file.content) for file in files.values()) < 40_000_000
    assert digest(files) == digest(collect())


@pytest.mark.netns
@pytest.mark.rootless
def test_it_runs_on_a_host_that_has_nothing(tmp_path: Path) -> None:
    folder, root = tmp_path / "bin", tmp_path / "root"
    folder.mkdir()
    inside = root / folder.relative_to("/")
    inside.mkdir(parents=True)
    Installed(folder).install(collect())
    script = f"mount --bind {folder} {inside} && exec chroot {root} {folder}/ambit"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        input=b'{"cniVersion":"1.0.0"}',
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "VERSION", "PYTHONHOME": "/gone", "LANG": "tlh"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["cniVersion"] == "1.0.0"
    assert done.stderr == b""


def test_versions_are_kept_and_repaired(tmp_path: Path) -> None:
    installed = Installed(tmp_path)
    versions = [{"plugin.pyc": File(str(number).encode())} for number in range(3)]
    for number, files in enumerate(versions):
        assert not installed.is_complete(version(files))
        installed.install(files)
        assert installed.is_complete(version(files))
        folder = tmp_path / ".ambit" / digest(files)
        os.utime(folder, (number, number))
        assert str(folder).encode() in (tmp_path / "ambit").read_bytes()
    kept = {each.name for each in (tmp_path / ".ambit").iterdir()}
    assert kept == {digest(versions[1]), digest(versions[2])}
    (tmp_path / "ambit").unlink()
    assert not installed.is_complete(version(versions[2]))
    installed.install(versions[2])
    assert installed.is_complete(version(versions[2]))
    installed.uninstall()
    installed.uninstall()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_damaged_version_is_made_anew(tmp_path: Path, damage: str) -> None:
    installed = Installed(tmp_path)
    files = {"plugin.pyc": File(b"code"), "bin/python3": File(b"interpreter", executable=True)}
    installed.install(files)
    interpreter = tmp_path / ".ambit" / digest(files) / "bin/python3"
    interpreter.unlink()
    if damage == "cut":
        interpreter.write_bytes(b"inter")
    (tmp_path / ".ambit/.new-left").mkdir()  # of an agent that was killed while it wrote
    assert not installed.is_complete(version(files))
    installed.install(files)
    assert installed.is_complete(version(files))
    assert interpreter.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in (tmp_path / ".ambit").iterdir()] == [digest(files)]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AmbitError, match="gone"):
        Installed(tmp_path / "gone").install({})


def test_programs_without_a_loader() -> None:
    assert elf_interpreter(b"#!/bin/sh\n") is None
    assert elf_interpreter(launcher(["/bin/true"], "x86_64")) is None
