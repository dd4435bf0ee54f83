"""The images of Istio's sample manifests, under their own names: the same services that the laptop cluster runs.

A name that no entry of `ambit.local.pods.images` knows is an error of ours, found by a test.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ambit.local.pods.images import ImageEntry, built_in, find_entry
from image.interpreter import PACKAGES, PYTHON
from image.oci import Image, Layer
from image.trees import ROOT

GENERAL = (
    "docker.io/library/busybox:latest", "docker.io/library/busybox:1", "docker.io/library/python:3",
    "docker.io/library/alpine:latest", "docker.io/library/debian:latest", "docker.io/library/ubuntu:latest",
    "docker.io/curlimages/curl:latest", "localhost/curl:dev", "localhost/echo:dev", "localhost/busybox:dev",
    "localhost/python:dev",
)  # fmt: skip
"""Names that tests and people use beside the samples', as the container runtime writes them out."""


def sample_names(folder: Path = ROOT / "examples/istio") -> list[str]:
    """Every image that a manifest below `folder` names."""
    texts = (path.read_text() for path in sorted(folder.rglob("*.yaml")))
    return sorted({name for text in texts for name in re.findall(r"\bimage: *(\S+)", text)})


def entries(names: Iterable[str]) -> dict[str, ImageEntry]:
    """What runs in each image. Raises LookupError for a name that nothing stands for."""
    table = built_in(PYTHON, PACKAGES)
    found = {}
    for name in names:
        entry = find_entry(name, table)
        if entry is None:
            raise LookupError(f"no built-in entry of ambit.local.pods.images stands for {name}")
        found[name] = entry
    return found


def sample_images(layers: tuple[Layer, ...]) -> list[Image]:
    """All of them share the same layers and differ in what they start."""
    return [
        Image((name,), layers, entry.command, entry.args, entry.environment)
        for name, entry in entries((*sample_names(), *GENERAL)).items()
    ]
