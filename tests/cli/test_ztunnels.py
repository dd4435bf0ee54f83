"""Stock ztunnels that a control plane serves are shown like our own node proxies."""

import asyncio
from typing import Any, cast

import pytest

from ambit.cli import checks, proxies, ztunnels
from ambit.cli.commands import certs, ps, version
from ambit.cli.ztunnels import names_of, node_proxies
from ambit.core.errors import NotRunning, Unreachable
from ambit.kube.client import Client
from ambit.kube.errors import NotFound

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
SYNCED = {"wds": {"sent": 3, "acked": 3}}


def pod(namespace: str, name: str, node: str, *args: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"name": "istio-proxy", "args": list(args)}]},
        "status": READY,
    }


AGENT = pod("ambit-system", "ambit-node-x", "node1", "node", "keep")
STOCK = pod("istio-system", "ztunnel-y", "node2", "proxy", "ztunnel")
CONTROL = pod("ambit-system", "ambit-control-z", "node1", "control", "run")


def entry(of: dict[str, Any]) -> dict[str, Any]:
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    proxy = f"ztunnel~10.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"
    return {"node": of["spec"]["nodeName"], "caller": "", "proxy": proxy, "types": SYNCED}


LEFT = entry(pod("istio-system", "ztunnel-gone", "node3"))
IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"
# As ztunnel's `/config_dump` has them: without the fields that our agents add.
DUMP = {
    "version": {"version": "1.31-alpha", "gitRevision": "62d8265"},
    "certificates": [
        {
            "identity": IDENTITY,
            "state": "Available",
            "certChain": [
                {
                    "serialNumber": "17",
                    "validFrom": "2026-11-21T03:00:00Z",
                    "expirationTime": "2026-11-23T03:00:00Z",
                }
            ],
            "rootCerts": [],
        }
    ],
}


class Cluster:
    """An agent on node1, a stock ztunnel on node2, and one that a control plane remembers and that is gone."""

    async def list(self, resource: Any, *_: Any, label_selector: str = "", **__: Any) -> list[dict[str, Any]]:
        if resource.plural == "pods":
            return {"app=ztunnel": [AGENT], "app=istiod": [CONTROL]}.get(label_selector, [])
        if resource.plural == "nodes":
            return [{"metadata": {"name": name}} for name in ("node1", "node2")]
        if resource.plural == "daemonsets":
            template = {"spec": {"template": {"spec": {}}}}
            return [{**template, "status": {"desiredNumberScheduled": 2}}]
        return []

    async def get(self, _: Any, name: str, namespace: str) -> dict[str, Any]:
        if (namespace, name) != ("istio-system", "ztunnel-y"):
            raise NotFound(404, "NotFound", f"pod {name} is not there")
        return STOCK


async def answer(_: Any, of: dict[str, Any], path: str, *__: Any) -> Any:
    match of["metadata"]["name"], path:
        case "ambit-control-z", "/debug/syncz":
            return [entry(AGENT), entry(STOCK), LEFT]
        case "ztunnel-y", "/config_dump":
            return DUMP
        case "ambit-control-z", "/debug/proxies":
            return []
        case "ambit-node-x", "/config_dump":
            return {"certificates": []}
        case "ambit-node-x" | "ambit-control-z", "/version":
            return {"version": "0.1.0", "envoy": "1.40.0"}
        case "ambit-node-x", "/status":
            return {}
        case name, _:
            raise Unreachable(f"{name} has no {path}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Client:
    for module in (checks, proxies, ps, version, ztunnels):
        monkeypatch.setattr(module, "ask", answer)
    return cast(Client, Cluster())


def test_ids_of_node_proxies_name_their_pods() -> None:
    assert names_of([entry(STOCK), entry(STOCK), {"proxy": "ambit"}, {"proxy": "ztunnel~~.~"}, {}]) == [
        ("istio-system", "ztunnel-y")
    ]


def test_node_proxies_are_ours_and_stock_ones(cluster: Client) -> None:
    assert asyncio.run(node_proxies(cluster)) == [AGENT, STOCK]
    assert asyncio.run(node_proxies(cluster, "node2")) == [STOCK]
    with pytest.raises(NotRunning, match="no node proxy on node 'node3'"):
        asyncio.run(node_proxies(cluster, "node3"))


def test_ps_shows_a_ztunnel_and_its_version(cluster: Client) -> None:
    found = {each["name"]: each for each in asyncio.run(ps.proxies(cluster))}
    stock = found["ztunnel-y.istio-system"]
    assert (stock["type"], stock["version"], stock["envoy"]) == ("ztunnel", "1.31-alpha", "")
    assert (stock["sync"], stock["control"]) == ("SYNCED", "ambit-control-z")
    assert found["ambit-node-x.ambit-system"]["type"] == "node"


def test_version_counts_ztunnels_for_themselves(cluster: Client) -> None:
    program = version.Program("0.1.0", "1.40.0")
    lines = version.version_lines(asyncio.run(version.running_versions(cluster, program)))
    assert "ztunnel version: 1.31-alpha (1 running)" in lines
    assert "node proxy version: 0.1.0 (1 running)" in lines and "Envoy version: 1.40.0 (1 running)" in lines


def test_certs_say_when_those_of_a_ztunnel_end() -> None:
    now = 1_795_316_400.0  # 2026-11-22T03:00:00Z
    assert list(certs.short_rows(DUMP, now)) == [["shop/web", "Available", "1d", "", ""]]


def test_check_takes_a_ztunnel_for_the_nodes_proxy_and_looks_at_its_certificates(
    cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [each for each in checks.CHECKS if each.id in ("proxies-ready", "certificates")]
    found = {each.id: each.error for each in asyncio.run(checks.run_checks(cluster, wanted))}
    assert found["proxies-ready"] == ""
    monkeypatch.setitem(DUMP["certificates"][0], "state", "Unavailable: away")  # type: ignore[index, call-overload]
    found = {each.id: each.error for each in asyncio.run(checks.run_checks(cluster, wanted))}
    assert found["certificates"] == f"{IDENTITY} on node2: Unavailable: away"
