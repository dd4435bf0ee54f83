"""What an agent asks of the cluster before it starts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.core.errors import AmbitError, BadInput, Unreachable
from ambit.kube.errors import NotFound
from ambit.node.introduction import cluster_ranges, locality, service_ranges
from ambit.node.settings import SERVICE_RANGES
from ambit.node.state.mesh import MeshState


class Cluster:
    """Stands for the client of a cluster that answers so about a node."""

    def __init__(self, answer: dict[str, Any] | AmbitError) -> None:
        self.answer = answer

    async def get(self, *_: object) -> dict[str, Any]:
        if isinstance(self.answer, AmbitError):
            raise self.answer
        return self.answer

    async def list(self, *_: object) -> list[dict[str, Any]]:
        return [await self.get()]


def asked(answer: dict[str, Any] | AmbitError) -> tuple[str, str, str]:
    client: Any = Cluster(answer)
    return asyncio.run(locality(client, "x"))


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInput, match="has no node 'x'") as caught:
        asked(NotFound(404, "NotFound", 'nodes "x" not found'))
    assert "kubectl get nodes" in caught.value.hint


def test_an_api_server_that_is_away_stops_no_agent() -> None:
    assert asked(Unreachable("away")) == ("", "", "")
    labels = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1"}
    assert asked({"metadata": {"labels": labels}}) == ("eu", "eu-1", "")


SERVICE_CIDR = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00:10:96::/112"]}}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[MeshState]:
    made = MeshState(tmp_path / "state.sqlite")
    yield made
    made.close()


def ranges(answer: dict[str, Any] | AmbitError, state: MeshState, *given: str) -> tuple[str, ...]:
    """The ranges that an agent has which starts with these options beside such an API server."""
    client: Any = Cluster(answer)
    read = asyncio.run(service_ranges(client, given))
    return tuple(map(str, cluster_ranges(given, read, state)))


def test_service_ranges_are_those_of_the_service_cidrs_and_outlast_the_api_server(state: MeshState) -> None:
    cidrs = ("10.96.0.0/12", "fd00:10:96::/112")
    assert ranges(SERVICE_CIDR, state, SERVICE_RANGES) == cidrs
    assert ranges(Unreachable("away"), state, SERVICE_RANGES) == cidrs


def test_cluster_without_service_cidrs_has_the_given_ranges_only(state: MeshState) -> None:
    missing = NotFound(404, "NotFound", "the server could not find the requested resource")
    assert ranges(missing, state, SERVICE_RANGES, "10.244.0.0/16") == ("10.244.0.0/16",)


def test_no_range_is_known_when_none_is_given(state: MeshState) -> None:
    assert ranges(SERVICE_CIDR, state, "") == ()
