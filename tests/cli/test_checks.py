"""What `ambit check` makes of what it is told."""

from typing import Any

import pytest

from ambit.cli.checks import without_proxy

NODES = [
    {"metadata": {"name": "a", "labels": {"kubernetes.io/os": "linux"}}},
    {"metadata": {"name": "b", "labels": {"kubernetes.io/os": "linux"}}},
    {"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}},
    {"metadata": {"name": "x"}},
]


def daemon_set(wanted: int | None, **selector: str) -> dict[str, Any]:
    status = {} if wanted is None else {"desiredNumberScheduled": wanted}
    return {
        "spec": {"template": {"spec": {"nodeSelector": selector} if selector else {}}},
        "status": status,
    }


@pytest.mark.parametrize(
    ("part", "served", "missing"),
    [
        (daemon_set(4), {"a", "b", "w", "x"}, []),
        (daemon_set(4), {"a"}, ["b", "w", "x"]),
        (daemon_set(2, **{"kubernetes.io/os": "linux"}), {"a", "b"}, []),
        (daemon_set(2, **{"kubernetes.io/os": "linux"}), {"a"}, ["b"]),
        # Affinity or a taint leaves `b` out.
        (daemon_set(1, **{"kubernetes.io/os": "linux"}), {"a"}, []),
        (daemon_set(None), {"a"}, []),
    ],
)
def test_nodes_that_lack_a_proxy(part: dict[str, Any], served: set[str], missing: list[str]) -> None:
    assert without_proxy(NODES, [part], served) == missing
