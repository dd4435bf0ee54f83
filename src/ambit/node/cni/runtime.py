"""A copy of the agent's own interpreter for the host: what the CNI plugin runs with, so that a host needs no Python.

Rules:
1. Everything comes from where the agent runs (its image): interpreter, dynamic loader, shared libraries, the few
   modules that the plugin imports. Nothing of the host is used, so any host of this machine type will do.
2. A version lies under its own digest, complete before its name appears, and is never changed; the plugin's one file
   is replaced in one step. The version before stays, because a plugin may just be starting from it.
3. The interpreter runs isolated (`-I -S -B -X utf8`): no variable, folder or site of the host changes what it loads.
"""

import contextlib
import hashlib
import importlib.util
import marshal
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from ambit.core.errors import AmbitError, EnvironmentProblem
from ambit.node.cni import plugin
from ambit.node.cni.launcher import launcher

PLUGIN = "ambit"
"""The plugin's type, which is the name of its file."""
_FOLDER = ".ambit"
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_INTERPRETER = "bin/python3"
_LOADER = "loader"
_LIBRARIES = "shared"
_MODULES = f"lib/{_VERSION}"
_SCRIPT = "plugin.pyc"
_NEW = ".new-"
_ELF_INTERPRETER = 3
_NEEDED = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x", re.MULTILINE)
_IMPORTS = """
import sys
sys.path.append(sys.argv[1])
import plugin
for name, module in sorted(sys.modules.items()):
    found = getattr(module, "__file__", None)
    if found and name not in ("plugin", "os.path") and not name.startswith("_frozen"):
        print(name, hasattr(module, "__path__"), found, sep="\\t")
"""


class File(msgspec.Struct, frozen=True):
    content: bytes
    executable: bool = False


Files = dict[str, File]


def collect() -> Files:
    """The files of one version by their relative path. Blocks about half a second. Raises EnvironmentProblem."""
    python = Path(sys.executable).resolve()
    loader = elf_interpreter(python.read_bytes())
    if loader is None:
        raise EnvironmentProblem(
            f"{python} is not dynamically linked", "use the interpreter of ambit's image"
        )
    files = {
        _INTERPRETER: File(python.read_bytes(), executable=True),
        _LOADER: File(loader.read_bytes(), executable=True),
        f"{_MODULES}/lib-dynload/README": File(b"Extension modules.\n"),
    }
    script = Path(plugin.__file__)
    linked = [python]
    for name, is_package, source in _imports(python, script):
        if source.suffix == ".so":
            files[f"{_MODULES}/lib-dynload/{source.name}"] = File(source.read_bytes())
            linked.append(source)
        elif source.suffix in (".py", ".pyc"):
            path = name.replace(".", "/") + ("/__init__" if is_package else "")
            files[f"{_MODULES}/{path}.pyc"] = File(_compiled(source, name))
    files[_SCRIPT] = File(_compiled(script, PLUGIN))
    for each in linked:
        for name, library in _libraries(loader, each):
            files[f"{_LIBRARIES}/{name}"] = File(library.read_bytes())
    return files


def digest(files: Files) -> str:
    """The name of a version: equal for equal files."""
    total = hashlib.sha256()
    for name, file in sorted(files.items()):
        total.update(f"{name}\0{file.executable}\0{len(file.content)}\0".encode())
        total.update(file.content)
    return total.hexdigest()[:16]


class Version(msgspec.Struct, frozen=True):
    """What is known of a version without its content: its name, and the size of each file in bytes."""

    name: str
    sizes: dict[str, int]


def version(files: Files) -> Version:
    return Version(digest(files), {path: len(file.content) for path, file in files.items()})


class Installed:
    """The plugin's program in the container runtime's folder `folder`, which is at the same path on the host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = folder / PLUGIN

    def install(self, files: Files) -> None:
        """Make the program there and this version. Blocks. Raises AmbitError; nothing is changed then."""
        name = digest(files)
        target = self._folder / _FOLDER / name
        program = launcher(_arguments(target), platform.machine())
        try:
            if not self._has(version(files)):
                self._write(target, files)
            if not self._program.is_file() or self._program.read_bytes() != program:
                replace(self._program, program, 0o755)
            self._remove_old(name)
        except OSError as problem:
            raise AmbitError(
                f"the CNI plugin cannot be written to {self._folder}: {problem.strerror}",
                "the folder of the container runtime's CNI plugins must be mounted writable at the same path",
            ) from problem

    def uninstall(self) -> None:
        """Leave nothing. Raises OSError."""
        self._program.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder / _FOLDER)

    def is_complete(self, wanted: Version) -> bool:
        """Whether program and version are there."""
        target = self._folder / _FOLDER / wanted.name
        try:
            program = self._program.read_bytes()
        except OSError:
            return False
        return program == launcher(_arguments(target), platform.machine()) and self._has(wanted)

    def _has(self, wanted: Version) -> bool:
        target = self._folder / _FOLDER / wanted.name
        try:
            return all((target / path).stat().st_size == size for path, size in wanted.sizes.items())
        except OSError:
            return False

    def _write(self, target: Path, files: Files) -> None:
        target.parent.mkdir(mode=0o755, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=target.parent, prefix=_NEW))
        try:
            new.chmod(0o755)
            for path, file in files.items():
                destination = new / path
                destination.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                with destination.open("wb") as opened:
                    opened.write(file.content)
                    os.fchmod(opened.fileno(), 0o755 if file.executable else 0o644)
                    opened.flush()
                    os.fsync(opened.fileno())
            if target.exists():  # somebody damaged it
                target.rename(new.with_name(f"{new.name}-damaged"))
            new.rename(target)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _remove_old(self, current: str) -> None:
        others = [each for each in (self._folder / _FOLDER).iterdir() if each.name != current]
        unfinished = [each for each in others if each.name.startswith(_NEW)]
        versions = sorted(set(others) - set(unfinished), key=lambda each: each.stat().st_mtime)
        for each in (*unfinished, *versions[:-1]):
            shutil.rmtree(each, ignore_errors=True)


def replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step; its temporary name has no ending that a container runtime looks for. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def elf_interpreter(content: bytes) -> Path | None:
    """The dynamic loader that a 64-bit little-endian ELF program names; None when it names none."""
    if content[:6] != b"\x7fELF\x02\x01":
        return None
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", content, start + index * size)
        if kind == _ELF_INTERPRETER:
            return Path(content[offset : offset + length].rstrip(b"\0").decode())
    return None


def _arguments(version: Path) -> list[str]:
    return [
        str(version / _LOADER),
        "--library-path",
        str(version / _LIBRARIES),
        str(version / _INTERPRETER),
        "-I",
        "-S",
        "-B",
        "-X",
        "utf8",
        str(version / _SCRIPT),
    ]


def _imports(python: Path, script: Path) -> list[tuple[str, bool, Path]]:
    """Name, whether it is a package, and file of each module that the plugin imports."""
    lines = _output(
        [str(python), "-I", "-S", "-B", "-X", "utf8", "-c", _IMPORTS, str(script.parent)]
    ).splitlines()
    found = [line.split("\t") for line in lines]
    return [(name, package == "True", Path(path)) for name, package, path in found]


def _libraries(loader: Path, file: Path) -> list[tuple[str, Path]]:
    listed = _output([str(loader), "--list", str(file)])
    return [(name, Path(path)) for name, path in _NEEDED.findall(listed) if name]


def _compiled(source: Path, name: str) -> bytes:
    """Byte code that is never compared with its source, which is not there (PEP 552)."""
    if source.suffix == ".pyc":
        return source.read_bytes()
    text = source.read_bytes()
    code = compile(text, f"<ambit>/{name}.py", "exec", dont_inherit=True)
    unchecked_hash = struct.pack("<I", 1) + importlib.util.source_hash(text)
    return importlib.util.MAGIC_NUMBER + unchecked_hash + marshal.dumps(code)


def _output(command: list[str]) -> str:
    hint = "use the interpreter of ambit's image"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{command[0]} takes more than a minute for the CNI plugin", hint) from None
    if done.returncode:
        raise EnvironmentProblem(
            f"the interpreter cannot be copied for the CNI plugin: {done.stderr.strip()[-300:]}", hint
        )
    return done.stdout
