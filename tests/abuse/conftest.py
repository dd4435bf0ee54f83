"""Fixtures of abuse tests: each has its own attacker, and a victim that the tests of a file share."""

from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.abuse.tenant import Attacker, Victim, make_attacker, make_victim


@pytest.fixture(scope="module")
def victim(mesh: Mesh) -> Iterator[Victim]:
    with make_victim(mesh) as made:
        yield made


@pytest.fixture
def attacker(mesh: Mesh) -> Iterator[Attacker]:
    with make_attacker(mesh) as made:
        yield made
