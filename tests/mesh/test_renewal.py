"""Certificates that live for a minute, under traffic."""

import time

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace
from tests.mesh.renewal import all_renewed, nobody_noticed
from tests.mesh.settings import with_options
from tests.mesh.traffic import start_traffic

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]


@pytest.mark.feature("F10")
def test_certificates_are_renewed_under_traffic(mesh: Mesh) -> None:
    with with_options(mesh, "--certificate-lifetime", "60s"), make_namespace(mesh) as namespace:
        start_traffic(mesh, namespace)
        begin = time.time()
        for _ in range(2):
            all_renewed(mesh, namespace)
        nobody_noticed(mesh, namespace, begin)
