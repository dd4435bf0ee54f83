"""Where requests are read: in pods of a waypoint, or inline, where who asks and who serves are.

Both give the same answers, so tests about requests run at both. One that does not says why, and docs/waypoints.md does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import side_by_side

T = TypeVar("T")
IN_PODS, INLINE = "ambit-waypoint", "ambit-inline"
PLACEMENTS = (IN_PODS, INLINE)
"""The GatewayClasses."""


def at_both(
    make: Callable[[Mesh, str], AbstractContextManager[T]], classes: Sequence[str] = PLACEMENTS
) -> tuple[Any, Any]:
    """The fixtures `shops`, by class, made side by side, and `shop`, each of them; to be assigned to these names."""

    @pytest.fixture(scope="module")
    def shops(mesh: Mesh) -> Iterator[dict[str, T]]:
        with side_by_side({each: make(mesh, each) for each in classes}) as made:
            yield made

    @pytest.fixture(scope="module", params=classes)
    def shop(shops: dict[str, T], request: pytest.FixtureRequest) -> T:
        return shops[request.param]

    return shops, shop
