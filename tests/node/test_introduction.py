"""What an agent asks of the cluster before it starts."""

import asyncio
from typing import Any

import pytest

from ambit.core.errors import AmbitError, BadInput, Unreachable
from ambit.kube.errors import NotFound
from ambit.node.introduction import locality


class Cluster:
    """Stands for the client of a cluster that answers so about a node."""

    def __init__(self, answer: dict[str, Any] | AmbitError) -> None:
        self.answer = answer

    async def get(self, *_: object) -> dict[str, Any]:
        if isinstance(self.answer, AmbitError):
            raise self.answer
        return self.answer


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
