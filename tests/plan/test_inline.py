"""Requests that are routed in their caller's node: how their backends are called."""

from typing import Any

import msgspec

from ambit.model.backend_tls import BackendTls
from ambit.model.service import Service
from ambit.plan.values import CLUSTER
from tests.plan import cases
from tests.plan.as_text import content_of


def _endpoints(service: Service) -> list[Any]:
    (cluster,) = (each for each in cases.secured(service) if each.type_url == CLUSTER)
    (locality,) = content_of(cluster)["load_assignment"]["endpoints"]
    found: list[Any] = locality.get("lb_endpoints", [])
    return found


def test_who_can_trust_no_server_calls_none() -> None:
    """Not in plain text either."""
    assert len(_endpoints(cases.SECURED)) == 1
    nobody = {80: BackendTls("secured.example.com")}
    assert not _endpoints(msgspec.structs.replace(cases.SECURED, backend_tls=nobody))
