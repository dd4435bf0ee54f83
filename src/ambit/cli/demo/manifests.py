"""Istio's sample manifests, unchanged, as the demo applies them."""

from pathlib import Path
from typing import Any

import yaml

import ambit
from ambit.core.errors import EnvironmentProblem
from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists
from ambit.kube.resource import DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, Resource

KINDS: dict[str, Resource] = {each.kind: each for each in (SERVICES, SERVICE_ACCOUNTS, DEPLOYMENTS)}


def manifest(name: str) -> tuple[dict[str, Any], ...]:
    """The objects of one sample. Raises EnvironmentProblem when the installation lacks it."""
    package = Path(ambit.__file__).parent
    for directory in (package / "examples" / "istio", package.parents[1] / "examples" / "istio"):
        path = directory / f"{name}.yaml"
        if path.is_file():
            return tuple(
                value for value in yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader) if value
            )
    raise EnvironmentProblem(
        f"this installation has no sample {name}.yaml", "install ambit again, or use a clone"
    )


async def create_all(client: Client, namespace: str, objects: tuple[dict[str, Any], ...]) -> None:
    """Create the objects in a namespace; what exists stays as it is."""
    for value in objects:
        try:
            await client.create(KINDS[value["kind"]], value, namespace)
        except AlreadyExists:
            continue
