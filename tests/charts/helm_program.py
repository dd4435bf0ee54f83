"""Which Helm the tests use: `$HELM`, the one in PATH, or the one built for the test cluster."""

import os
import shutil

import pytest

from tests.kubernetes.cluster.programs import bin_folder

MISSING = "no Helm: not in $HELM, not in PATH; `python -m tests.kubernetes.cluster build` builds one with Go"


def find_helm() -> str | None:
    built = bin_folder() / "helm"
    return shutil.which(os.environ.get("HELM") or "helm") or (str(built) if built.exists() else None)


def needed_helm() -> str:
    """The same; skips the test without one."""
    found = find_helm()
    if found is None:
        pytest.skip(MISSING)
    return found
