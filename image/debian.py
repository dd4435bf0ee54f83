"""Debian packages as a root file system: apt resolves, downloads and verifies; nothing is installed and no
maintainer script runs, so no root is needed.

Rules:
1. apt gets a state directory, sources and an empty package database of its own: the machine's release, lists and
   installed packages do not matter. Signatures are checked with Debian's own keyring.
2. Recommended packages are left out, and so are packages that only maintainer scripts need (`LEFT_OUT`).
3. Everything is merged below /usr, as in every current Debian: /bin, /lib, /lib64 and /sbin are links.
4. Each package leaves its control file in `/var/lib/dpkg/status.d`, where vulnerability scanners look for it.
"""

import fnmatch
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ambit.core.errors import EnvironmentProblem
from image.cache import fingerprint

RELEASE = "bookworm"
LISTS_AGE = 24 * 3600
"""Seconds for which downloaded package lists are used without asking again."""
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

LEFT_OUT = frozenset({"awk", "debconf", "dpkg", "mawk", "openssl", "perl-base", "libnsl2", "libtirpc3"})
"""Not followed: needed by maintainer scripts only, or (the last two) by Python's removed `nis` module."""

_UNUSED = (
    "usr/share/locale/*", "usr/share/man/*", "usr/share/info/*", "usr/share/lintian/*", "usr/share/bug/*",
    "usr/share/bash-completion/*", "usr/share/zsh/*", "usr/share/menu/*", "usr/share/pixmaps/*",
    "usr/share/applications/*", "usr/share/binfmts/*", "usr/share/perl5/*", "usr/share/gdb/*",
    "usr/share/initramfs-tools/*", "etc/init.d/*", "etc/update-motd.d/*", "lib/systemd/*", "usr/lib/systemd/*",
    "usr/lib/*/gconv/*", "lib/*/gconv/*", "usr/lib/python3*/lib2to3/*", "usr/lib/python3*/pydoc_data/*",
    "usr/lib/python3*/turtledemo/*", "usr/lib/python3*/lib-dynload/nis.*", "usr/bin/pdb3*",
    "usr/bin/pydoc3*", "usr/bin/pygettext3*",
)  # fmt: skip
_MERGED = ("bin", "lib", "lib64", "sbin")


class Package(msgspec.Struct, frozen=True, order=True):
    """One package of the release, as apt would install it. `needs` holds alternatives, each in its written order."""

    name: str
    version: str
    sha256: str
    needs: tuple[tuple[str, ...], ...] = ()


def parse_packages(text: str) -> list[Package]:
    """The paragraphs that `apt-cache show` prints."""
    found = []
    for paragraph in text.strip().split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
        )
        wanted = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
        needs = tuple(
            tuple(choice.split()[0].partition(":")[0] for choice in need.split("|"))
            for need in wanted.split(",")
            if need.strip()
        )
        found.append(Package(fields["Package"], fields["Version"], fields["SHA256"], needs))
    return found


def closure(
    roots: Iterable[str],
    show: Callable[[Sequence[str]], Iterable[Package]],
    left_out: frozenset[str] = LEFT_OUT,
) -> list[Package]:
    """`roots` and everything they need, sorted by name; `show` is asked once for each further level.

    Of alternatives the first is taken, unless another is there already.
    """
    found: dict[str, Package] = {}
    level = sorted(set(roots))
    while level:
        packages = {package.name: package for package in show(level)}
        missing = [name for name in level if name not in packages]
        if missing:
            raise EnvironmentProblem(
                f"Debian {RELEASE} has no package {', '.join(missing)}", "a dependency may have been renamed"
            )
        found |= packages
        needs = (need for package in packages.values() for need in package.needs)
        level = sorted(
            {need[0] for need in needs if found.keys().isdisjoint(need) and not left_out & {*need}}
        )
    return sorted(found.values())


def mirror() -> str:
    """Where Debian's packages come from: `AMBIT_DEBIAN_MIRROR`, else what this machine's own apt uses.

    Raises EnvironmentProblem when neither names one (on Ubuntu, whose own archive has other packages).
    """
    if given := os.environ.get("AMBIT_DEBIAN_MIRROR"):
        return given.rstrip("/")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    sites = (line.strip().rstrip("/") for line in listed.stdout.splitlines())
    found = next((site for site in sites if site.endswith("/debian")), None)
    if found is None:
        raise EnvironmentProblem(
            "this machine's apt knows no Debian mirror", "let AMBIT_DEBIAN_MIRROR=URL name one"
        )
    return found.removesuffix("/debian")


class Apt:
    """apt with all its state below one directory."""

    def __init__(self, directory: Path, architecture: str) -> None:
        """Raises EnvironmentProblem when a program or Debian's keyring is missing."""
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise EnvironmentProblem(
                    f"{program} was not found: the image is made of Debian packages",
                    "build on Debian or Ubuntu",
                )
        if not _KEYRING.is_file():
            raise EnvironmentProblem(f"{_KEYRING} is missing", "apt-get install debian-archive-keyring")
        self._mirror = mirror()
        self._directory = directory
        self._archives = directory / "archives"
        self._stamp = directory / "updated"
        for each in (directory / "state/lists/partial", directory / "cache/archives/partial", self._archives):
            each.mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        (directory / "sources.list").write_text(
            "".join(
                f"deb [signed-by={_KEYRING}] {self._mirror}/{where} main\n"
                for where in (
                    f"debian {RELEASE}",
                    f"debian {RELEASE}-updates",
                    f"debian-security {RELEASE}-security",
                )
            )
        )
        options = {
            # Whatever this machine's own apt puts up with.
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Languages": "none",
            "Dir::Cache": f"{directory}/cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": f"{directory}/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": f"{directory}/state",
            "Dir::State::status": f"{directory}/status",
        }
        self._options = [f"-o{key}={value}" for key, value in options.items()]

    def update(self) -> None:
        """Get the package lists, unless those here are from today."""
        if self._stamp.exists() and time.time() - self._stamp.stat().st_mtime < LISTS_AGE:
            return
        self._run("apt-get", "update", "--error-on=any", "-qq")
        for old in self._directory.glob("closure-*.json"):
            old.unlink()
        self._stamp.touch()

    def show(self, names: Sequence[str]) -> list[Package]:
        """What apt would install for each name; names that it does not know are missing in the answer."""
        return parse_packages(self._run("apt-cache", "show", "--no-all-versions", *names))

    def closure(self, roots: Sequence[str]) -> list[Package]:
        """`closure` of the packages in these lists; apt takes seconds for it, so the answer is kept with them."""
        key = fingerprint([*roots, *sorted(LEFT_OUT), str(self._stamp.stat().st_mtime_ns)])
        known = self._directory / f"closure-{key}.json"
        if known.exists():
            return msgspec.json.decode(known.read_bytes(), type=list[Package])
        found = closure(roots, self.show)
        known.write_bytes(msgspec.json.encode(found))
        return found

    def download(self, packages: Iterable[Package]) -> Mapping[Package, Path]:
        """Each package's archive, downloaded when it is not here yet; apt has compared its hash."""
        files = {
            package: self._archives / f"{package.name}_{package.sha256[:16]}.deb" for package in packages
        }
        missing = [package for package, file in files.items() if not file.exists()]
        if missing:
            incoming = self._directory / "incoming"
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir()
            wanted = [f"{package.name}={package.version}" for package in missing]
            self._run("apt-get", "download", "-qq", *wanted, where=incoming)
            for package in missing:
                (archive,) = incoming.glob(f"{package.name}_*.deb")
                archive.rename(files[package])
        return files

    def _run(self, program: str, *arguments: str, where: Path | None = None) -> str:
        command = [program, *self._options, *arguments]
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise EnvironmentProblem(
                f"{program} {arguments[0]} failed: {done.stderr.strip()}",
                f"{self._mirror} must be reachable; AMBIT_DEBIAN_MIRROR=URL names another mirror",
            )
        return done.stdout


def unpack(archives: Mapping[Package, Path], root: Path) -> None:
    """Lay the packages' files below `root`, without what no container uses. Copyright files stay."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package, archive in sorted(archives.items()):
        control = subprocess.run(["dpkg-deb", "--field", archive], check=True, capture_output=True)
        (status / package.name).write_bytes(control.stdout)
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            with tarfile.open(fileobj=reader.stdout, mode="r|") as content:
                for member in content:
                    _place(content, member, root)
        if reader.returncode:
            raise EnvironmentProblem(f"{archive} cannot be unpacked", f"rm {archive}, then build again")


def _place(content: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    name = member.name.removeprefix("./").rstrip("/")
    if not name or name == "." or name in _MERGED or not _kept(name):
        return
    target = root / _merged(name)
    where = target if member.isdir() else target.parent
    if not where.resolve().is_relative_to(root.resolve()):
        raise EnvironmentProblem(
            f"/{name} of a package goes through a link that leads out of the image",
            "leave the package out, or the link (image/debian.py)",
        )
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.unlink(missing_ok=True)
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.unlink(missing_ok=True)
        target.hardlink_to(root / _merged(member.linkname.removeprefix("./")))
    else:
        source = content.extractfile(member)
        assert source is not None
        target.unlink(missing_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)


def _merged(name: str) -> str:
    return f"usr/{name}" if name.partition("/")[0] in _MERGED else name


def _kept(name: str) -> bool:
    if name.startswith("usr/share/doc/"):
        return name.endswith("/copyright")
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in _UNUSED)
