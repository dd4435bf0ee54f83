"""`ambit waypoint …` against the laptop's API server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ambit.cli.commands import waypoint as module
from ambit.cli.main import ambit
from ambit.cli.waypoints import condition, enrolled_in
from ambit.core.errors import AmbitError, BadInput
from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists
from ambit.kube.resource import GATEWAYS, NAMESPACES, PODS, SERVICE_ENTRIES, SERVICES, WORKLOAD_ENTRIES
from ambit.local.apiserver.server import ApiServer, ApiSettings

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    server = ApiServer(ApiSettings(tmp_path / "pki"), None)
    await server.start([], tmp_path / "api.sock")
    async with Client.over_unix(tmp_path / "api.sock") as client:
        for name in ("default", "shop"):
            labels = {"istio.io/dataplane-mode": "ambient"} if name == "shop" else {}
            with contextlib.suppress(AlreadyExists):
                await client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        yield client
    await server.stop()


@pytest.fixture
def typed(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Types `ambit waypoint …`; raises what the command does."""
    monkeypatch.setattr(module, "open_client", lambda *_: Client.over_unix(tmp_path / "api.sock"))

    async def run(*words: str) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, ambit, ["waypoint", *words])
        if isinstance(result.exception, AmbitError):
            raise result.exception
        return result

    return run


async def programmed(client: Client, name: str, namespace: str = "shop") -> None:
    """As the control plane would say."""
    said = {
        "type": "Programmed",
        "status": "True",
        "reason": "Programmed",
        "message": "",
        "lastTransitionTime": "2026-11-20T10:00:00Z",
    }
    await client.patch(GATEWAYS, name, {"status": {"conditions": [said]}}, namespace, subresource="status")


@pytest.mark.parametrize(
    ("words", "metadata"),
    [
        ([], {"name": "waypoint"}),
        (["--name", "", "-n", "shop"], {"name": "waypoint", "namespace": "shop"}),
        (
            ["--name", "w", "--for", "all", "--revision", "canary"],
            {"name": "w", "labels": {"istio.io/waypoint-for": "all", "istio.io/rev": "canary"}},
        ),
    ],
)
@pytest.mark.parametrize("spelling", [[], ["x"], ["experimental"]])
def test_generate_prints_the_gateway(spelling: list[str], words: list[str], metadata: dict[str, Any]) -> None:
    result = CliRunner().invoke(ambit, [*spelling, "waypoint", "generate", *words])
    assert (result.exit_code, result.stderr) == (0, "")
    assert yaml.safe_load(result.stdout) == {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {
            "gatewayClassName": "ambit-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def test_what_no_waypoint_can_be() -> None:
    with pytest.raises(BadInput, match="no waypoint can be called 'none'"):
        CliRunner().invoke(ambit, ["waypoint", "generate", "--name", "none"], catch_exceptions=False)
    assert CliRunner().invoke(ambit, ["waypoint", "generate", "--for", "some"]).exit_code == 2
    assert CliRunner().invoke(ambit, ["x", "authz"]).exit_code == 2


@pytest.mark.parametrize("enroll", [[], ["--enroll-namespace"]])
async def test_a_namespace_that_is_not_there_is_named(client: Client, typed: Run, enroll: list[str]) -> None:
    with pytest.raises(BadInput, match="there is no namespace nope") as found:
        await typed("apply", "-n", "nope", *enroll)
    assert found.value.hint == "type `kubectl create namespace nope`"
    with pytest.raises(BadInput) as found:
        await typed("apply", "-n", "shpo", *enroll)
    assert found.value.hint.startswith("did you mean -n shop? Else type `kubectl")
    assert await client.list(GATEWAYS) == []


async def test_inline_waypoints_are_listed(client: Client, typed: Run) -> None:
    await typed("apply", "-n", "shop")
    await typed("apply", "-n", "shop", "--name", "light", "--inline")
    made = await client.get(GATEWAYS, "light", "shop")
    assert made["spec"]["gatewayClassName"] == "ambit-inline"
    listed = (await typed("list", "-A")).stdout.splitlines()
    assert [line.split()[:5] for line in listed[1:]] == [
        ["shop", "light", "default", "service", "(inline)"],
        ["shop", "waypoint", "default", "service", "Unknown"],
    ]
    await programmed(client, "light")
    await programmed(client, "waypoint")
    told = (await typed("status", "-n", "shop")).stdout.splitlines()
    assert [line.split()[:5] for line in told[1:]] == [
        ["light", "True", "Programmed", "Programmed", "inline"],
        ["waypoint", "True", "Programmed", "Programmed", "pods"],
    ]


def test_an_inline_waypoint_is_for_services() -> None:
    typed = ["waypoint", "generate", "--inline"]
    made = yaml.safe_load(CliRunner().invoke(ambit, [*typed, "--for", "service"]).stdout)
    assert made["spec"]["gatewayClassName"] == "ambit-inline"
    with pytest.raises(BadInput, match="it is for services only"):
        CliRunner().invoke(ambit, [*typed, "--for", "all"], catch_exceptions=False)


async def test_apply_waits_and_labels_only_what_is_ready(client: Client, typed: Run) -> None:
    with pytest.raises(AmbitError, match=r"is not programmed after 0\.1 s; Pending: Waiting for controller"):
        await typed("apply", "-n", "shop", "--enroll-namespace", "--waypoint-timeout", "0.1s")
    namespace = await client.get(NAMESPACES, "shop")
    assert "istio.io/use-waypoint" not in namespace["metadata"]["labels"]
    await programmed(client, "waypoint")
    result = await typed("apply", "-n", "shop", "--enroll-namespace", "--for", "all")
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "waypoint shop/waypoint applied",
        "waypoint shop/waypoint is ready",
        "namespace shop labelled istio.io/use-waypoint=waypoint",
    ]
    namespace = await client.get(NAMESPACES, "shop")
    assert namespace["metadata"]["labels"]["istio.io/use-waypoint"] == "waypoint"
    assert (await typed("apply", "-n", "shop", "--enroll-namespace")).exit_code == 0, "again is no change"
    with pytest.raises(BadInput, match="namespace shop has the waypoint shop/waypoint"):
        await typed("apply", "-n", "shop", "--name", "other", "--enroll-namespace")
    assert [each["metadata"]["name"] for each in await client.list(GATEWAYS)] == ["waypoint"]
    assert "is ready" not in (await typed("apply", "-n", "shop", "--name", "other")).stdout
    await programmed(client, "other")
    await typed("apply", "-n", "shop", "--name", "other", "--enroll-namespace", "--overwrite")
    namespace = await client.get(NAMESPACES, "shop")
    assert namespace["metadata"]["labels"]["istio.io/use-waypoint"] == "other"


async def test_a_namespace_outside_the_mesh_is_told(client: Client, typed: Run) -> None:
    await typed("apply")
    await programmed(client, "waypoint", "default")
    result = await typed("apply", "--enroll-namespace")
    assert "note: namespace default is not in the mesh: `kubectl label namespace default" in result.stderr


async def test_a_gateway_of_another_class_is_left_alone(client: Client, typed: Run) -> None:
    spec = {"gatewayClassName": "other", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}
    made = {"metadata": {"name": "waypoint", "namespace": "shop"}, "spec": spec}
    await client.create(GATEWAYS, made)
    with pytest.raises(AmbitError) as refused:
        await typed("apply", "-n", "shop")
    assert "choose another --name" in refused.value.hint
    assert (await client.get(GATEWAYS, "waypoint", "shop"))["spec"]["gatewayClassName"] == "other"
    assert "No waypoints found in namespace shop." in (await typed("list", "-n", "shop")).stderr
    with pytest.raises(AmbitError, match="there is no waypoint shop/waypoint"):
        await typed("delete", "waypoint", "-n", "shop")
    await typed("delete", "--all", "-n", "shop")
    assert len(await client.list(GATEWAYS)) == 1


async def test_nothing_found_says_where_there_is_something(client: Client, typed: Run) -> None:
    assert (await typed("list", "-A")).stderr == "No waypoints found.\n"
    assert (await typed("list")).stderr == "No waypoints found in namespace default.\n"
    await typed("apply", "-n", "shop")
    some = "note: there are some in shop: -n NAMESPACE, or -A\n"
    for words in (["list"], ["status"], ["delete", "--all"]):
        told = await typed(*words)
        assert (told.exit_code, told.stderr) == (0, f"No waypoints found in namespace default.\n{some}")
    assert "note: there is no namespace 'shpo'" in (await typed("list", "-n", "shpo")).stderr
    with pytest.raises(AmbitError, match="there is no waypoint default/waypoint") as missing:
        await typed("delete", "waypoint")
    assert missing.value.hint == "there is one in namespace shop: -n shop"


async def test_what_is_left_out_the_second_time_is_told(client: Client, typed: Run) -> None:
    assert (await typed("apply", "-n", "shop", "--inline")).stderr == ""
    assert (await typed("apply", "-n", "shop", "--inline")).stderr == ""
    told = (await typed("apply", "-n", "shop")).stderr
    assert "note: waypoint shop/waypoint was inline and gets pods" in told
    assert "Without that gap: `ambit waypoint apply --name ANOTHER --wait`" in told
    assert (await typed("apply", "-n", "shop", "--for", "all")).stderr == ""
    told = (await typed("apply", "-n", "shop")).stderr
    assert "note: waypoint shop/waypoint took all" in told and "--for all leaves it" in told
    assert (await typed("apply", "-n", "shop")).stderr == ""


async def test_list_and_status(client: Client, typed: Run) -> None:
    labelled = await typed("apply", "-n", "shop", "--revision", "canary")
    assert labelled.stderr.startswith(
        "note: there is one control plane, which serves waypoints of every revision"
    )
    assert "`ambit waypoint delete --revision canary`" in labelled.stderr
    assert (await typed("apply", "--name", "mine", "--for", "workload")).stderr == ""
    await programmed(client, "waypoint")
    lines = (await typed("list", "-A")).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["NAMESPACE", "NAME", "REVISION", "TRAFFIC", "TYPE", "PROGRAMMED"],
        ["default", "mine", "default", "workload", "Unknown"],
        ["shop", "waypoint", "canary", "service", "True"],
    ]
    lines = (await typed("list", "-n", "shop")).stdout.splitlines()
    assert lines[0].split() == ["NAME", "REVISION", "TRAFFIC", "TYPE", "PROGRAMMED"]
    assert lines[1].split() == ["waypoint", "canary", "service", "True"]
    found = json.loads((await typed("list", "-n", "shop", "-o", "json")).stdout)
    assert [each["kind"] for each in found] == ["Gateway"]
    ready = await typed("status", "-n", "shop")
    assert ready.stdout.splitlines()[0].split() == [
        "NAME",
        "STATUS",
        "TYPE",
        "REASON",
        "PLACEMENT",
        "MESSAGE",
    ]
    assert ready.stdout.splitlines()[1].split()[:4] == ["waypoint", "True", "Programmed", "Programmed"]
    late = await typed("status", "-A", "--waypoint-timeout", "0.1s")
    assert late.exit_code == 1
    assert late.stdout.splitlines()[1].split()[:4] == ["default", "mine", "Unknown", "Programmed"]
    assert (await typed("status", "-A", "--wait=false")).exit_code == 0


async def test_delete_says_what_is_closed_by_it(client: Client, typed: Run) -> None:
    for words in (["--name", "a"], ["--name", "b", "-r", "one"], ["--name", "c"]):
        await typed("apply", "-n", "shop", *words)
    await client.patch(NAMESPACES, "shop", {"metadata": {"labels": {"istio.io/use-waypoint": "a"}}})
    labels = {"istio.io/use-waypoint": "a", "istio.io/use-waypoint-namespace": "shop"}
    service = {
        "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": {"ports": [{"port": 80}]},
    }
    await client.create(SERVICES, service)
    own = {"name": "db", "namespace": "shop", "labels": {"istio.io/use-waypoint": "a"}}
    host = {"hosts": ["db.example"], "ports": [{"number": 80, "name": "http"}], "resolution": "DNS"}
    await client.create(SERVICE_ENTRIES, {"metadata": own, "spec": host})
    await client.create(WORKLOAD_ENTRIES, {"metadata": own, "spec": {"address": "192.0.2.1"}})
    spec = {"containers": [{"name": "main", "image": "x"}]}
    await client.create(PODS, {"metadata": own, "spec": spec})
    with pytest.raises(AmbitError, match="there is no waypoint shop/x"):
        await typed("delete", "x", "a", "-n", "shop")
    assert [each["metadata"]["name"] for each in await client.list(GATEWAYS)] == ["b", "c"]
    await typed("apply", "-n", "shop", "--name", "a")
    told = (await typed("delete", "a", "-n", "shop")).stderr
    assert "`kubectl label namespace shop istio.io/use-waypoint-`" in told
    assert "`kubectl label service web -n default istio.io/use-waypoint-`" in told
    for kind in ("serviceentry", "workloadentry", "pod"):
        assert f"`kubectl label {kind} db -n shop istio.io/use-waypoint-`" in told
    assert (await typed("delete", "--revision", "one", "-n", "shop")).stdout == "waypoint shop/b deleted\n"
    assert (await typed("delete", "--all", "-n", "shop")).stdout == "waypoint shop/c deleted\n"
    for words in ([], ["a", "--all"]):
        with pytest.raises(BadInput):
            await typed("delete", *words)


def test_a_condition_of_an_older_generation_says_nothing() -> None:
    said = {"type": "Programmed", "status": "True", "observedGeneration": 1}
    waypoint = {"metadata": {"generation": 2}, "status": {"conditions": [said]}}
    assert condition(waypoint)["status"] == "Unknown"
    assert condition({"metadata": {"generation": 1}, "status": {"conditions": [said]}}) == said


def test_who_is_enrolled_where() -> None:
    assert enrolled_in({}, "shop") == enrolled_in({"istio.io/use-waypoint": "none"}, "shop") == ""
    labels = {"istio.io/use-waypoint": "w"}
    assert enrolled_in(labels, "shop") == "shop/w"
    assert enrolled_in(labels | {"istio.io/use-waypoint-namespace": "infra"}, "shop") == "infra/w"
