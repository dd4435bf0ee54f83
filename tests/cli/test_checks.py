"""What `ambit check` makes of what it is told."""

import asyncio
from typing import Any, cast

import pytest

from ambit.cli import checks, ztunnels
from ambit.cli.checks import without_proxy
from ambit.cli.commands.check import exit_code, failed
from ambit.core.errors import Unreachable
from ambit.kube.client import Client

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


class _Mesh:
    """Two nodes of which the second's agent does not answer, and one pod on each that has used too much."""

    def __init__(self, ready: str = "True") -> None:
        self.agents = [
            {
                "metadata": {"name": f"ambit-node-{name}", "namespace": "ambit-system"},
                "spec": {"nodeName": name, "containers": [{"name": "c", "args": ["node", "keep"]}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
            }
            for name, status in (("node1", "True"), ("node2", ready))
        ]

    async def list(self, resource: Any, *_: Any, **__: Any) -> list[dict[str, Any]]:
        if resource.plural == "pods":
            return self.agents
        return (
            [{"metadata": {"name": "p", "namespace": "shop"}}]
            if resource.kind == "PeerAuthentication"
            else []
        )


async def _ask(_: Any, pod: dict[str, Any], path: str, *__: Any) -> Any:
    if pod["spec"]["nodeName"] == "node2":
        raise Unreachable("cannot reach port 15000")
    if path == "/debug/syncz":
        return []
    if path == "/status":
        return {"capped": ["shop/web/1"]}
    return {
        "certificates": [{"identity": "spiffe://a/ns/b/sa/c", "state": "Unavailable: x", "certChain": []}]
    }


@pytest.mark.parametrize("ready", ["True", "False"])
def test_an_agent_that_is_down_is_told_once(monkeypatch: pytest.MonkeyPatch, ready: str) -> None:
    monkeypatch.setattr(checks, "ask", _ask)
    monkeypatch.setattr(ztunnels, "ask", _ask)
    wanted = {"proxies-ready", "certificates", "destinations"}
    chosen = [each for each in checks.CHECKS if each.id in wanted]
    found = asyncio.run(checks.run_checks(cast(Client, _Mesh(ready)), chosen))
    told = {each.id: each.error for each in found}
    said = (
        "the agent on node2 does not answer: cannot reach port 15000"
        if ready == "True"
        else "pod ambit-node-node2 on node2 is Running, not ready"
    )
    assert told == {
        "proxies-ready": said,
        "certificates": "spiffe://a/ns/b/sa/c on node1: Unavailable: x",
        "destinations": "pod shop/web on node1 has used so many destinations that new ones are refused",
    }


def test_waiting_ends_when_only_warnings_are_left() -> None:
    def outcome(result: checks.Result) -> checks.Outcome:
        return checks.Outcome("c", "i", "d", result)

    assert not failed([outcome("success"), outcome("warning")])
    assert failed([outcome("warning"), outcome("error")])


@pytest.mark.parametrize(
    ("found", "at_error", "at_warning"),
    [
        ([], 0, 0),
        ([("workloads", "warning")], 0, 0),
        ([("workloads", "error"), ("objects", "error")], 1, 1),
        ([("objects", "warning")], 0, 79),
        ([("objects", "error"), ("workloads", "warning")], 79, 79),
    ],
)
def test_what_is_wrong_with_objects_has_an_exit_code_of_its_own(
    found: list[tuple[str, checks.Result]], at_error: int, at_warning: int
) -> None:
    outcomes = [checks.Outcome(category, "i", "d", result) for category, result in found]
    assert (exit_code(outcomes), exit_code(outcomes, "warning")) == (at_error, at_warning)
    assert failed(outcomes) is (at_error == 1)


def test_findings_are_told_by_their_level(monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(code: str, level: str) -> dict[str, Any]:
        origin = {"kind": "HTTPRoute", "namespace": "shop", "name": "web"}
        return {"code": code, "level": level, "path": "spec", "text": "is bad", "origin": origin}

    async def answer(*_: Any) -> Any:
        found = [finding("AMB0401", "error"), finding("AMB0409", "warning"), finding("AMB0204", "info")]
        return {"findings": found, "undecodable": {"pods shop/web": "no number"}}

    monkeypatch.setattr(checks, "ask", answer)
    chosen = [each for each in checks.CHECKS if each.id in ("objects-in-force", "objects-understood")]
    told = asyncio.run(checks.run_checks(cast(Client, _Mesh()), chosen))
    assert [(each.result, each.error) for each in told] == [
        ("error", "AMB0401 HTTPRoute shop/web spec: is bad\npods shop/web cannot be read: no number"),
        ("warning", "AMB0409 HTTPRoute shop/web spec: is bad"),
    ]


LABEL = "type `kubectl label --overwrite namespace NAME istio.io/dataplane-mode=ambient`"


@pytest.mark.parametrize(
    ("hint", "problems", "said"),
    [
        (
            "type `ambit explain CODE`",
            ["AMB1 a", "AMB2 b", "AMB1 c"],
            "type `ambit explain AMB1`, `ambit explain AMB2`",
        ),
        ("type `ambit explain CODE`", ["no answer"], "type `ambit explain CODE`"),
        (LABEL, ["Namespace shop has a"], LABEL.replace("NAME", "shop")),
        (LABEL, ["Pod shop/web has a"], LABEL.replace("namespace NAME", "pod web -n shop")),
        (LABEL, ["pods of shop ask"], LABEL),
    ],
)
def test_a_hint_names_what_is_wrong(hint: str, problems: list[str], said: str) -> None:
    assert checks._made_out(hint, problems) == said
