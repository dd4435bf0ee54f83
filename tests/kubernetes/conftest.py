"""Fixtures of tests on real Kubernetes; `./dev test-kubernetes` provides the cluster."""

import os
from pathlib import Path

import pytest

from tests.kubernetes.cluster.settings import Cluster, load
from tests.kubernetes.inside import Kubernetes


@pytest.fixture(scope="session")
def kubernetes() -> Kubernetes:
    """The running cluster, with ambit installed; the tests run inside its network."""
    return Kubernetes(_cluster())


def _cluster() -> Cluster:
    cluster = load(Path(os.environ["KUBE_STATE"])) if "KUBE_STATE" in os.environ else None
    if cluster is None:
        pytest.fail("there is no cluster to test: type `./dev test-kubernetes`")
    return cluster
