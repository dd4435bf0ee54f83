"""From Debian packages, locked wheels and this tree to two archives."""

import platform
import time
from pathlib import Path

import msgspec

from ambit import __version__
from ambit.core.errors import EnvironmentProblem
from image import trees
from image.cache import Cache, content
from image.debian import Apt
from image.oci import Image, Layer, write_archive
from image.samples import sample_images
from image.trees import BASE_PACKAGES, LOCK, ROOT, TOOL_PACKAGES, USER

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ROLES = ("base", "wheels", "ambit")
"""The layers of ambit's image, lowest first."""
SAMPLES = ("base", "ambit", "tools")
_RECIPE = tuple(ROOT / "image" / name for name in ("debian.py", "interpreter.py", "oci.py", "trees.py"))
SOURCES = tuple(
    ROOT / name
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "src/ambit", "examples", "charts")
)
"""What our wheel is built from."""


class Built(msgspec.Struct, frozen=True):
    """What came out. `digest` is that of the image's manifest; `names` those of the samples' images."""

    digest: str
    layers: dict[str, Layer]
    names: tuple[str, ...]
    seconds: float


def build(output: Path, samples: Path, name: str, cache: Path, *, fresh: bool = False) -> Built:
    """Write both archives. Raises EnvironmentProblem when something is missing."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise EnvironmentProblem(f"Envoy has no wheel for {platform.machine()}", "build on x86_64 or aarch64")
    kept = Cache(cache)
    with kept.held():
        began = time.monotonic()
        if fresh:
            kept.forget()
        layers = _layers(kept, Apt(cache / "apt", architecture))
        labels = {
            "org.opencontainers.image.title": "ambit",
            "org.opencontainers.image.version": __version__,
            "org.opencontainers.image.licenses": "Apache-2.0",
        }
        image = Image((name,), tuple(layers[each] for each in ROLES), ("ambit",), labels=labels, user=USER)
        several = sample_images(tuple(layers[each] for each in SAMPLES))
        for path in (output, samples):
            path.parent.mkdir(parents=True, exist_ok=True)
        digests = write_archive([image], output, architecture)
        write_archive(several, samples, architecture)
    names = tuple(each.names[0] for each in several)
    return Built(digests[name], layers, names, time.monotonic() - began)


def _layers(cache: Cache, apt: Apt) -> dict[str, Layer]:
    apt.update()
    base_packages = apt.closure(BASE_PACKAGES)
    inside = {package.name for package in base_packages}
    tool_packages = [package for package in apt.closure(TOOL_PACKAGES) if package.name not in inside]
    recipe = content(*_RECIPE)
    base_inputs = [recipe, *(package.sha256 for package in base_packages)]
    base, root = cache.layer("base", base_inputs, lambda tree: trees.base(tree, apt.download(base_packages)))
    wheels, _ = cache.layer("wheels", [*base_inputs, content(LOCK)], lambda tree: trees.wheels(tree, root))
    ambit, _ = cache.layer("ambit", [*base_inputs, content(*SOURCES)], lambda tree: trees.ambit(tree, root))
    tools, _ = cache.layer(
        "tools",
        [recipe, *(package.sha256 for package in tool_packages)],
        lambda tree: trees.tools(tree, apt.download(tool_packages)),
    )
    return {"base": base, "wheels": wheels, "ambit": ambit, "tools": tools}
