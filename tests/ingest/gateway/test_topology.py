"""How many proxies are in front of a gateway."""

from typing import Any

import msgspec
import pytest

from ambit.ingest.gateway.topology import PROXY_CONFIG
from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.status import GatewayStatus
from tests.ingest.gateway.build import edge
from tests.ingest.test_mesh import change


def compiled(text: str | None, *, own: str | None = None, trusted: int = 0) -> MeshCompiler:
    resource, body = edge()
    if text is not None:
        body["spec"]["infrastructure"] = {"annotations": {PROXY_CONFIG: text}}
    if own is not None:
        body["metadata"]["annotations"] = {PROXY_CONFIG: own}
    made = MeshCompiler(msgspec.structs.replace(MeshSettings(), trusted_proxies=trusted))
    made.apply([change((resource, body))])
    return made


def topology(**fields: Any) -> str:
    return msgspec.json.encode({"gatewayTopology": fields, "concurrency": 2}).decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"text": None}, 0),
        ({"text": None, "trusted": 3}, 3),
        ({"text": topology(numTrustedProxies=2), "trusted": 3}, 2),
        ({"text": topology(numTrustedProxies=0), "trusted": 3}, 0),
        ({"text": "gatewayTopology:\n  numTrustedProxies: 1\n"}, 1),
        ({"text": "concurrency: 2", "trusted": 3}, 3),
        ({"text": "", "trusted": 3}, 3),
        ({"text": None, "own": topology(numTrustedProxies=1)}, 1),
        ({"text": topology(numTrustedProxies=2), "own": topology(numTrustedProxies=1)}, 2),
    ],
)
def test_the_annotation_goes_before_the_mesh(given: dict[str, Any], expected: int) -> None:
    assert compiled(**given).proxies["default/edge"].trusted_proxies == expected


@pytest.mark.parametrize(
    "text",
    [
        *(topology(numTrustedProxies=each) for each in (-1, 101, "2", True, 1.5)),
        topology(proxyProtocol={}),
        topology(numTrustedProxy=1),
        "gatewayTopology: {numTrustedProxies: 1",
        "[]",
        "a: 1\n---\nb: 2",
    ],
)
def test_what_is_no_number_of_proxies_is_refused(text: str) -> None:
    made = compiled(text)
    assert not made.proxies
    status = made.statuses["Gateway default/edge"]
    assert isinstance(status, GatewayStatus)
    accepted = next(each for each in status.conditions if each.type == "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "InvalidParameters")
    assert PROXY_CONFIG in accepted.message


def test_documents_after_the_second_are_not_read() -> None:
    bad = "a: 1\n---\nb: 2\n---\n{"
    made = compiled(bad)
    [accepted] = [
        each for each in made.statuses["Gateway default/edge"].conditions if each.type == "Accepted"
    ]
    assert (accepted.reason, "line" in accepted.message) == ("InvalidParameters", False)
