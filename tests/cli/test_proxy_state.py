"""What `-n` leaves of a node proxy's dump."""

import asyncio
from typing import Any, cast

import pytest

from ambit.cli.commands.proxy_state import _policy_rows, _service_rows, in_words, only
from ambit.cli.mesh import note_missing_namespace
from ambit.kube.client import Client

LISTED = [{"namespace": "shop", "name": "web"}, {"namespace": "bank", "name": "web"}]
STATES = {"1": {"info": {"namespace": "shop"}}, "2": {"info": {"namespace": "bank"}}}


def test_one_namespace_is_left() -> None:
    assert only(LISTED, "shop") == LISTED[:1]
    assert only(STATES, "bank") == {"2": STATES["2"]}
    assert only(LISTED, "none") == []


def test_without_a_namespace_everything_is_left() -> None:
    assert only(LISTED, None) is LISTED
    assert only(STATES, None) is STATES


def test_a_policy_in_dry_run_does_not_look_enforced() -> None:
    said = {"namespace": "shop", "name": "try", "action": "Deny", "scope": "Namespace"}
    dump = {"policies": [said, said | {"dryRun": False}, said | {"dryRun": True}]}
    assert [row[2] for row in _policy_rows(dump)] == ["Deny", "Deny", "Deny (dry run)"]


def test_a_waypoint_that_leads_nowhere_is_told_in_words() -> None:
    """Agents have hostnames that nobody has; the Gateway's name may have dots."""
    told = {
        "shop/web.shop.svc.cluster.local": ("shop/web.shop.svc.cluster.local", None),
        "infra/way.v2.infra.not-allowed.invalid": ("infra/way.v2", "not usable"),
        "shop/web.shop.no-waypoint.invalid": (None, "closed by a policy"),
    }
    given = [
        {"namespace": "shop", "name": "web", "waypoint": {"destination": each, "hboneMtlsPort": 15008}}
        for each in told
    ]
    found = in_words([*given, {"namespace": "shop", "name": "free"}])
    said = [(each["waypoint"].get("destination"), each["waypoint"].get("refused")) for each in found[:-1]]
    assert said == list(told.values())
    assert [row[3] for row in _service_rows({"services": found})] == [
        "shop/web.shop.svc.cluster.local",
        "infra/way.v2 (not usable)",
        "None (closed by a policy)",
        "None",
    ]
    assert in_words(STATES) is STATES


class _Namespaces:
    async def list(self, *_: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "shop"}}]


def test_a_namespace_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    client = cast("Client", _Namespaces())
    for namespace in (None, "shop", "shpo"):
        asyncio.run(note_missing_namespace(client, namespace))
    assert capsys.readouterr().err == "note: there is no namespace 'shpo': `kubectl get namespaces`\n"
