"""The client's verbs against the real API server, over TLS and the Unix socket."""

from pathlib import Path

import pytest

from ambit.core.errors import BadInput, EnvironmentProblem, Unreachable
from ambit.kube.client import Client, Patch
from ambit.kube.credentials import ExecPlugin
from ambit.kube.discovery import discover
from ambit.kube.errors import AlreadyExists, Conflict, Invalid, NotFound, Unauthorized
from ambit.kube.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    GATEWAYS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from tests.kube.conftest import Cluster

PROXIED = """
current-context: x
contexts: [{name: x, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: 'https://h', proxy-url: 'http://p'}}]
"""
VALUE = {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}


async def test_every_verb(cluster: Cluster) -> None:
    async with Client.from_kubeconfig(cluster.kubeconfig) as client:
        created = await client.create(CONFIG_MAPS, VALUE)
        assert created["metadata"]["uid"]
        with pytest.raises(AlreadyExists):
            await client.create(CONFIG_MAPS, VALUE)
        assert (await client.get(CONFIG_MAPS, "a", "default"))["data"] == {"k": "v"}
        (listed,) = await client.list(CONFIG_MAPS, "default", field_selector="metadata.name=a")
        assert (listed["kind"], listed["apiVersion"]) == ("ConfigMap", "v1")
        patched = await client.patch(CONFIG_MAPS, "a", {"data": {"k": None, "l": "w"}}, "default")
        assert patched["data"] == {"l": "w"}
        operations = [{"op": "add", "path": "/data/m", "value": "x"}]
        patched = await client.patch(CONFIG_MAPS, "a", operations, "default", kind=Patch.JSON)
        assert patched["data"] == {"l": "w", "m": "x"}
        with pytest.raises(Conflict):
            await client.replace(CONFIG_MAPS, {**created, "data": {}})
        replaced = await client.replace(CONFIG_MAPS, {**patched, "data": {}})
        assert not replaced.get("data")
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAPS, "a", "default", uid="another")
        await client.delete(CONFIG_MAPS, "a", "default", uid=created["metadata"]["uid"])
        with pytest.raises(NotFound, match='configmaps "a" not found'):
            await client.get(CONFIG_MAPS, "a", "default")


async def test_a_refusal_names_the_fields(cluster: Cluster) -> None:
    async with Client.over_unix(cluster.unix) as client:
        wrong = {"metadata": {"name": "w", "namespace": "default"}, "spec": {"ports": [{"port": 99999}]}}
        with pytest.raises(Invalid) as caught:
            await client.create(SERVICES, wrong)
        assert caught.value.code == 422
        assert any("port" in cause["field"] for cause in caught.value.causes)


async def test_a_watch_resumes_where_it_was_told(cluster: Cluster) -> None:
    async with Client.over_unix(cluster.unix) as client:
        first = await client.create(CONFIG_MAPS, VALUE)
        await client.patch(CONFIG_MAPS, "a", {"data": {"k": "w"}}, "default")
        version = first["metadata"]["resourceVersion"]
        async with client.watch(CONFIG_MAPS, "default", resource_version=version) as events:
            event = await anext(events)
        assert event.type == "MODIFIED"
        assert b'"w"' in bytes(event.object)


async def test_a_token_speaks_for_its_account(cluster: Cluster, tmp_path: Path) -> None:
    async with Client.from_kubeconfig(cluster.kubeconfig) as client:
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "bot", "namespace": "default"}})
        status = await client.token_request("default", "bot", ("istio-ca",), seconds=600)
    assert status["token"].count(".") == 2
    text = cluster.kubeconfig.read_text()
    lines = [line for line in text.splitlines() if "client-certificate-data" not in line]
    broken = tmp_path / "broken"
    broken.write_text("\n".join(line.replace("client-key-data:", "token:") for line in lines))
    async with Client.from_kubeconfig(broken) as client:
        with pytest.raises(Unauthorized):
            await client.list(NAMESPACES)


async def test_discovery_knows_builtin_and_custom_kinds(cluster: Cluster) -> None:
    async with Client.over_unix(cluster.unix) as client:
        found = {item.resource: item for item in await discover(client)}
    assert {"list", "watch", "delete"} <= found[DEPLOYMENTS].verbs
    assert found[DEPLOYMENTS].short_names == ("deploy",)
    assert GATEWAYS in found
    assert Resource("networking.istio.io", "v1alpha3", "envoyfilters", "EnvoyFilter") in found
    assert len({(each.group, each.plural) for each in found}) == len(found)
    assert not found[NAMESPACES].resource.namespaced


async def test_a_stopped_server_is_unreachable(cluster: Cluster) -> None:
    async with Client.from_kubeconfig(cluster.kubeconfig) as client:
        await client.list(NAMESPACES)
        await cluster.stop()
        with pytest.raises(Unreachable, match="cannot reach the API server"):
            await client.list(NAMESPACES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{a: [", "is not YAML"),
        ("current-context: x", "no context named 'x'"),
        (
            PROXIED,
            "proxy-url",
        ),
    ],
)
def test_wrong_kubeconfigs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(BadInput, match=message):
        Client.from_kubeconfig(tmp_path / "config")


def test_outside_a_pod_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(EnvironmentProblem, match="not a pod"):
        Client.in_cluster()


async def test_an_exec_plugin_gives_a_token_until_it_expires(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    script = (
        f"echo x >> {counter}; "
        'echo \'{"kind":"ExecCredential","status":{"token":"t","expirationTimestamp":"2999-01-01T00:00:00Z"}}\''
    )
    plugin = ExecPlugin({"command": "sh", "args": ["-c", script]})
    assert await plugin.header() == "Bearer t"
    assert await plugin.header() == "Bearer t"
    assert counter.read_text() == "x\n"
    plugin.forget()
    await plugin.header()
    assert counter.read_text() == "x\nx\n"
    with pytest.raises(EnvironmentProblem, match="exited with 3"):
        await ExecPlugin({"command": "sh", "args": ["-c", "exit 3"]}).header()
