"""The option by which a command learns of the mesh's settings, and reading its file."""

from pathlib import Path

import click

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.mesh_config import MeshConfig, mesh_config

mesh_config_option = click.option(
    "--mesh-config",
    "mesh_config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings of the mesh, with the fields of Istio's MeshConfig (serviceEntryVisibility, accessLogFile,"
    " extensionProviders, defaultProviders, defaultConfig), and enableWildcardHostServiceEntriesForTls.",
)


def read_text(file: Path) -> str:
    """Raises BadInput."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"{file} cannot be read: {problem}") from problem


def read_mesh_config(file: Path | None) -> MeshConfig:
    """What a file says, if one is given. Raises BadInput, which names the file and the field."""
    return mesh_config(read_text(file), str(file)) if file is not None else MeshConfig()
