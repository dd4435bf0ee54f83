"""There are no images: a container's image name is looked up in a list of patterns and becomes a command on
this host.

Rules:
1. The user's entries come first, then the built-in ones; the first match wins.
2. A pattern matches the whole name, the name without tag and digest, or either without its registry.
3. As in Kubernetes `command` replaces the image's entry point, `args` its default arguments.
4. A container whose own command exists on the host needs no image at all.
"""

import fnmatch
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ambit.core.errors import BadInput

_PACKAGES = str(Path(__file__).parents[3])
_LIBRARIES = os.pathsep.join(
    dict.fromkeys(
        [
            _PACKAGES,
            *(path for path in sys.path if path.endswith("-packages") and not path.startswith(sys.prefix)),
        ]
    )
)
"""What `python -m ambit` needs beside its own prefix: a source tree, or a user's own site-packages."""
PATH = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{os.path.dirname(sys.executable)}"


class ImageEntry(msgspec.Struct, frozen=True):
    """What stands for the images that match `pattern` (shell wildcards): entry point and default arguments.

    As in images, the entry point may be empty: then `args` name the program too.
    """

    pattern: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    yields: bool = False
    """Arguments that begin with a program are run without `command`, as the entry point of some images does."""


class UnknownImage(BadInput):
    """Neither the image nor the container's command is known here."""


def built_in(python: str, packages: str) -> tuple[ImageEntry, ...]:
    """The entries that come with ambit; `python` starts the samples, whose code is in the folder `packages`."""

    def sample(
        pattern: str, module: str, *fixed: str, args: tuple[str, ...] = (), **environment: str
    ) -> ImageEntry:
        """One of our own services, started without the site packages it does not need."""
        program = f"import sys; sys.path.insert(0, {packages!r}); from ambit.local.samples.{module} import main; main()"
        return ImageEntry(pattern, (python, "-I", "-S", "-c", program, *fixed), args, environment)

    def bookinfo(image: str, service: str, **environment: str) -> ImageEntry:
        return sample(f"*examples-bookinfo-{image}", "bookinfo", service, args=("9080",), **environment)

    return (
        bookinfo("productpage-v*", "productpage"),
        bookinfo("details-v*", "details"),
        bookinfo("ratings-v*", "ratings"),
        bookinfo("reviews-v1", "reviews", ENABLE_RATINGS="false"),
        bookinfo("reviews-v2", "reviews", ENABLE_RATINGS="true", STAR_COLOR="black"),
        bookinfo("reviews-v3", "reviews", ENABLE_RATINGS="true", STAR_COLOR="red"),
        sample("*examples-helloworld-v1", "helloworld", SERVICE_VERSION="v1"),
        sample("*examples-helloworld-v2", "helloworld", SERVICE_VERSION="v2"),
        sample("*istio*/ext-authz", "ext_authz"),
        sample("*tcp-echo-server", "tcp_echo", args=("9000,9001,9002", "hello")),
        sample("*go-httpbin", "httpbin", args=("8080",)),
        sample("*httpbin", "httpbin", args=("80",)),
        sample("*echo-server", "httpbin", args=("80",)),
        sample("echo", "httpbin", args=("80",)),
        ImageEntry("curlimages/curl", ("curl",), yields=True),
        ImageEntry("curl", ("curl",), yields=True),
        ImageEntry("python", (), ("python3",)),
        *(ImageEntry(name, (), ("sh",)) for name in ("busybox", "alpine", "debian", "ubuntu")),
        ImageEntry("bash", (), ("bash",)),
        ImageEntry("nginx", (), ("nginx", "-g", "daemon off;")),
    )


BUILT_IN: tuple[ImageEntry, ...] = (
    ImageEntry("ambit/*", (sys.executable, "-m", "ambit"), (), {"PYTHONPATH": _LIBRARIES}),
    *built_in(sys.executable, _PACKAGES),
)


def find_entry(image: str, entries: Iterable[ImageEntry]) -> ImageEntry | None:
    """The first entry whose pattern matches the image's name."""
    return next((entry for entry in entries if _matches(entry.pattern, image)), None)


def resolve(
    container: Mapping[str, Any], user_entries: Iterable[ImageEntry]
) -> tuple[list[str], dict[str, str]]:
    """(argv before `$(VAR)` expansion, the image's environment). Raises UnknownImage, with the command that helps."""
    image = str(container.get("image") or "")
    command = list(container.get("command") or ())
    args = list(container.get("args") or ())
    entry = find_entry(image, (*user_entries, *BUILT_IN))
    if command:
        if entry is None and not is_program(command[0]):
            raise _unknown(image)
        return command + args, dict(entry.environment) if entry else {}
    argv = _started(entry, args) if entry else []
    if entry is None or not argv:
        raise _unknown(image)
    if not is_program(argv[0]):
        raise _not_installed(image, argv[0])
    return argv, dict(entry.environment)


def _started(entry: ImageEntry, args: list[str]) -> list[str]:
    if entry.yields and args and not args[0].startswith("-") and is_program(args[0]):
        return args
    return [*entry.command, *(args or entry.args)]


def parse_entries(document: Any) -> tuple[ImageEntry, ...]:
    """The user's list as read from YAML. Raises BadInput that names the entry."""
    try:
        return tuple(msgspec.convert(document or [], tuple[ImageEntry, ...]))
    except msgspec.ValidationError as problem:
        raise BadInput(
            f"image map: {problem}", "an entry is {pattern: …, command: [program, …]}"
        ) from problem


def _unknown(image: str) -> UnknownImage:
    name = _without_tag(image) or "IMAGE"
    return UnknownImage(
        f'there are no images here, and "{image}" is not mapped to a command',
        f"ambit local image add '{name}' -- COMMAND [ARGUMENT...]",
    )


def _not_installed(image: str, program: str) -> UnknownImage:
    return UnknownImage(
        f'there are no images here; "{image}" stands for the program `{program}`, which this machine does not have',
        f"ambit local image add '{_without_tag(image)}' -- COMMAND [ARGUMENT...], or install it",
    )


def is_program(program: str) -> bool:
    """Whether pods find it: a path, or a name in their PATH. What is expanded later counts as found."""
    return "$(" in program or shutil.which(program, path=PATH) is not None


def _matches(pattern: str, image: str) -> bool:
    names = {image, _without_tag(image)}
    names |= {_without_registry(name) for name in names}
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _without_tag(image: str) -> str:
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _without_registry(image: str) -> str:
    first, slash, rest = image.partition("/")
    name = rest if slash and ("." in first or ":" in first or first == "localhost") else image
    return name.removeprefix("library/")
