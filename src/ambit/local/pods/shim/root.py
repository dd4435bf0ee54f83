"""The file system a container sees: the host's, read-only, without anything private.

Rules:
1. The new root is a tmpfs with one bind per entry of the host's root; `/run`, `/tmp`, `/var/tmp`, `/home`,
   `/root` are empty and private, as is every directory in `hidden` (the instance's state, the user's home).
2. `readable` paths (the interpreter, this package) come back, read-only, where hiding or a volume (as on
   `/tmp`) swallowed them.
3. A mount point that does not exist is made without touching the host: the nearest existing directory becomes a
   tmpfs with its old entries bound back in.
4. Afterwards the old root is detached, so no path leads out.
5. Empty directories belong to root of the pod; what is the host's stays the host's. Where the pod has a user
   namespace (`users.py`), the host's private files are therefore closed to it wherever they are.

This runs in the forked child between fork and exec; sources are named below `/.host` while the root is
assembled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ambit.local import kernel as linux
from ambit.local.pods.shim import kernel

TYPE_CHECKING = False  # `typing` costs each pod a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable

    from ambit.local.pods.shim.protocol import Mount, Sandbox

    Owned = Callable[[str], bool]


OLD = "/.host"
SCRATCH = ("run", "tmp", "var/tmp", "home", "root")
SPECIAL = frozenset({"proc", "sys", "dev", "lost+found", OLD.strip("/"), "run", "tmp", "home", "root"})
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
MASKED = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/kubernetes",
    "/etc/docker",
    "/proc/kcore",
    "/proc/keys",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
)
READ_ONLY_PROC = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq")


_covered: list[str] = []
"""Directories that were replaced by rule 3, in this child, which makes one root only."""


def enter(sandbox: Sandbox, mounts: list[Mount]) -> None:
    """Make the container's root and move into it. The caller owns a fresh mount namespace.

    The sandbox's `staging` is an existing empty directory outside every hidden one. Raises OSError.
    """
    staging, readable, owner = sandbox["staging"], sandbox["readable"], sandbox["user_base"]
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", staging, "tmpfs", linux.MS_NOSUID, "mode=0755")
    os.mkdir(staging + OLD)
    kernel.pivot_root(staging, staging + OLD)
    os.chdir("/")
    os.umask(0o022)
    _copy_host_root()
    for name in SCRATCH:
        _scratch("/" + name, owner)
    for path in sandbox["hidden"]:
        _hide(path, owner)
    for path in readable:
        _reveal(path)
    _processes_and_devices()
    for mount in sorted(mounts, key=_depth):
        place(OLD + mount["source"], mount["target"], mount["read_only"], _is_writable)
    for path in readable:
        with contextlib.suppress(
            OSError
        ):  # a read-only volume over the interpreter: the container wants it so
            _reveal(path)
    for path in MASKED:
        _mask(path)
    for path in _covered:
        kernel.make_read_only(path, below=False)
    linux.unmount(OLD, linux.MNT_DETACH)
    os.rmdir(OLD)
    kernel.make_read_only("/", below=False)  # volumes and scratch directories stay writable


def enter_shared(mounts: list[Mount]) -> None:
    """A privileged container: the instance's own view, later mounts included, plus its volumes."""
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_SLAVE)
    for mount in sorted(mounts, key=_depth):
        place(mount["source"], mount["target"], mount["read_only"], _is_below_run)


def place(source: str, target: str, read_only: bool, owned: Owned) -> None:
    """Bind `source` at `target`, making the mount point if it is missing (rule 3).

    `owned` tells which directories may get new entries; any other could be the host's disk.
    """
    is_directory = stat.S_ISDIR(os.stat(source).st_mode)
    parent = _existing_parent(os.path.dirname(target), owned)
    point = os.path.join(parent, os.path.basename(target))
    if os.path.islink(point) and not os.path.exists(point):
        _replace_by_tmpfs(parent, without=os.path.basename(point))
    if not os.path.exists(point):
        _make_writable(parent, owned)
        _make_point(point, is_directory)
    kernel.bind(source, point)
    if read_only:
        kernel.make_read_only(point)


def _depth(mount: Mount) -> int:
    return mount["target"].rstrip("/").count("/")


def _copy_host_root() -> None:
    with os.scandir(OLD) as entries:
        for entry in entries:
            target = "/" + entry.name
            if entry.name in SPECIAL:
                continue
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), target)
            elif entry.is_dir():
                os.mkdir(target)
                kernel.bind(entry.path, target)
                kernel.make_read_only(target)


def _scratch(path: str, owner: int) -> None:
    if os.path.islink(path):
        return
    if not os.path.isdir(path):
        if os.path.dirname(path) != "/":
            return
        os.mkdir(path)
    mode = "01777" if path.endswith("tmp") else "0755"
    _mount_empty(path, f"mode={mode},uid={owner},gid={owner}")


def _hide(path: str, owner: int) -> None:
    real = os.path.realpath(path)
    if real != "/" and os.path.isdir(real):
        _mount_empty(real, f"mode=0755,uid={owner},gid={owner}")


def _mount_empty(path: str, options: str) -> None:
    linux.mount("tmpfs", path, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)


def _reveal(path: str) -> None:
    if os.path.exists(path) or not os.path.exists(OLD + path):
        return
    os.makedirs(path)
    kernel.bind(OLD + path, path)
    kernel.make_read_only(path)


def _processes_and_devices() -> None:
    for name in ("proc", "sys", "dev"):
        os.mkdir("/" + name)
    kernel.bind(OLD + "/proc", "/proc")
    for path in filter(os.path.exists, READ_ONLY_PROC):
        kernel.bind(path, path)
        kernel.make_read_only(path)
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    try:
        linux.mount("sysfs", "/sys", "sysfs", flags)
    except PermissionError:
        kernel.bind(OLD + "/sys", "/sys")
    kernel.make_read_only("/sys")
    linux.mount("tmpfs", "/dev", "tmpfs", linux.MS_NOSUID, "mode=0755")
    for name in DEVICES:
        if os.path.exists(f"{OLD}/dev/{name}"):
            _make_point(f"/dev/{name}", directory=False)
            kernel.bind(f"{OLD}/dev/{name}", f"/dev/{name}")
    for name, data in (("pts", "newinstance,ptmxmode=0666,mode=0620"), ("shm", "mode=01777")):
        os.mkdir(f"/dev/{name}")
        kind = "devpts" if name == "pts" else "tmpfs"
        linux.mount(kind, f"/dev/{name}", kind, linux.MS_NOSUID | linux.MS_NOEXEC, data)
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd")):
        os.symlink(target, f"/dev/{name}")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")


def _mask(path: str) -> None:
    if os.path.islink(path) or not os.path.exists(path):
        return
    if os.path.isdir(path):
        _mount_empty(path, "mode=0755")
        kernel.make_read_only(path)
    else:
        kernel.bind("/dev/null", path)


def _existing_parent(path: str, owned: Owned) -> str:
    """`path` as an existing directory with links resolved, made on the way where it is missing."""
    if path in {"", "/"}:
        return "/"
    parent = _existing_parent(os.path.dirname(path), owned)
    here = os.path.join(parent, os.path.basename(path))
    if os.path.isdir(here):
        return os.path.realpath(here)
    if os.path.lexists(here):
        _replace_by_tmpfs(parent, without=os.path.basename(here))
    else:
        _make_writable(parent, owned)
    os.mkdir(here)
    return here


def _make_writable(directory: str, owned: Owned) -> None:
    if owned(directory):
        return
    if directory == "/":
        raise OSError(errno.EROFS, "a privileged container cannot mount a volume on a new directory of /")
    _replace_by_tmpfs(directory)


def _is_writable(directory: str) -> bool:
    """In an assembled root everything of the host is read-only, so what is not belongs to the pod."""
    return not os.statvfs(directory).f_flag & os.ST_RDONLY


def _is_below_run(directory: str) -> bool:
    return directory == "/run" or directory.startswith("/run/")


def _make_point(path: str, directory: bool) -> None:
    if directory:
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _replace_by_tmpfs(directory: str, without: str = "") -> None:
    """Cover `directory` with a tmpfs that shows the same entries, so that new ones can be made (rule 3)."""
    below = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source = f"/proc/self/fd/{below}"
        entries = [
            (entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
            for entry in os.scandir(source)
        ]
        linux.mount("tmpfs", directory, "tmpfs", linux.MS_NOSUID, "mode=0755")
        _covered.append(directory)
        for name, is_link, is_directory in entries:
            if name == without:
                continue
            target = os.path.join(directory, name)
            if is_link:
                os.symlink(os.readlink(f"{source}/{name}"), target)
                continue
            _make_point(target, is_directory)
            kernel.bind(f"{source}/{name}", target)
    finally:
        os.close(below)
