"""Tokens at a gateway: the rules are those of waypoints (`tests/plan/waypoint/test_tokens.py`)."""

import pytest

from tests.ingest.build import Given
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import to, to_edge
from tests.plan.gateway.conftest import Edge
from tests.tokens import Issuer

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

ISSUER = Issuer()


def tokens(name: str, *, kind: str = "Gateway", namespace: str = "default") -> Given:
    target = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    return "requestauthentications.security.istio.io", {
        "metadata": {"name": "tokens", "namespace": namespace},
        "spec": {"targetRefs": [target], "jwtRules": [{"issuer": ISSUER.name, "jwks": ISSUER.jwks}]},
    }


@pytest.mark.parametrize(
    ("given", "bad"),
    [
        (tokens("edge"), 401),
        (tokens("ambit", kind="GatewayClass", namespace="istio-system"), 401),
        (tokens("other"), 200),
        (tokens("ambit-waypoint", kind="GatewayClass", namespace="istio-system"), 200),
    ],
)
def test_a_token_must_be_valid(edge: Edge, given: Given, bad: int) -> None:
    edge.apply(gateway(), to_edge({"backendRefs": [to("one")]}), given)
    answers = [edge.get(**sent).status for sent in ({}, _bearer(ISSUER.token()), _bearer(Issuer().token()))]
    assert answers == [200, 200, bad]


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
