"""The Helm program and our charts: how `ambit install` and `ambit uninstall` change a cluster."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ambit
from ambit.core.errors import AmbitError, BadInput, EnvironmentProblem
from ambit.core.names import SYSTEM_NAMESPACE

RELEASE = "ambit"
UMBRELLA = "ambit"
PARTS = ("base", "control", "node")
RELEASE_ANNOTATIONS = {
    "meta.helm.sh/release-name": RELEASE,
    "meta.helm.sh/release-namespace": SYSTEM_NAMESPACE,
}
"""Which release an object belongs to, as Helm writes it."""
FIELD_MANAGER = "ambit-install"
OURS = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
"""Label of what an installation made beside Helm, and that goes with it."""
_ELSEWHERE = "HELM_KUBE"
"""Variables that begin so would lead Helm to another cluster or account than that of the checks before it."""
ADMISSION_POLICIES = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
"""Kubernetes 1.30 and newer have them; Helm asks the cluster, and without one it has to be told."""


def kubeconfig_file(given: str | None) -> str:
    """`--kubeconfig`, else the first file of $KUBECONFIG, else the usual one. Raises BadInput.

    Unlike reading commands, never the laptop's: there the mesh is installed already.
    """
    file = given or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = Path(file) if file else Path.home() / ".kube" / "config"
    if not path.is_file():
        raise BadInput(f"there is no kubeconfig {path}", "type --kubeconfig FILE, or set KUBECONFIG")
    return str(path)


def find_helm() -> str:
    """`$HELM`, else the one in PATH. Raises EnvironmentProblem."""
    named = os.environ.get("HELM")
    found = shutil.which(named or "helm")
    if found is None:
        raise EnvironmentProblem(
            f"{named or 'helm'} was not found",
            "install Helm 3 or 4 (https://helm.sh/docs/intro/install), or set HELM to its path",
        )
    return found


def is_of_release(value: dict[str, Any]) -> bool:
    """Whether Helm made this object as one of the release."""
    return RELEASE_ANNOTATIONS.items() <= (value["metadata"].get("annotations") or {}).items()


def is_ours(value: dict[str, Any]) -> bool:
    """Whether an installation made it beside Helm."""
    return OURS.items() <= (value["metadata"].get("labels") or {}).items()


@contextmanager
def umbrella_chart() -> Iterator[Path]:
    """A copy of the chart `ambit` with its parts inside, as `helm dependency build` would make it."""
    charts = _charts()
    with tempfile.TemporaryDirectory(prefix="ambit-chart-") as directory:
        target = Path(directory) / UMBRELLA
        built = shutil.ignore_patterns("charts", "Chart.lock")
        shutil.copytree(charts / UMBRELLA, target, ignore=built)
        for part in PARTS:
            shutil.copytree(charts / part, target / "charts" / part)
        yield target


def helm(arguments: Sequence[str], *, kubeconfig: str | None = None, context: str | None = None) -> str:
    """Run it and return its standard output. Raises AmbitError with what it said, EnvironmentProblem."""
    command = [find_helm(), *arguments]
    if kubeconfig is not None:
        command += ["--kubeconfig", kubeconfig]
    if context is not None:
        command += ["--kube-context", context]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_ELSEWHERE)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("Error: ") or f"helm ended with code {done.returncode}"
        raise AmbitError(f"helm {arguments[0]}: {said}", _hint(said))
    return done.stdout


def _hint(said: str) -> str:
    if "another operation" in said:
        return (
            "wait for whoever installs at this moment; if an installation was broken off, "
            f"type `helm rollback {RELEASE} -n {SYSTEM_NAMESPACE}`, or `ambit uninstall` if it was the first"
        )
    if "don't meet the specifications of the schema" in said:
        return "values of all parts: `helm show values` of charts/ambit, of one part: of charts/control and so on"
    return f"type `helm history {RELEASE} -n {SYSTEM_NAMESPACE}`"


def _charts() -> Path:
    package = Path(ambit.__file__).parent
    for directory in (package / "charts", package.parents[1] / "charts"):
        if (directory / UMBRELLA / "Chart.yaml").is_file():
            return directory
    raise EnvironmentProblem("this installation has no charts", "install ambit again, or use a clone")
