"""All controllers together against the real API server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ambit.kube.client import Client, Patch
from ambit.kube.errors import NotFound
from ambit.kube.resource import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    GATEWAYS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)
from ambit.local.apiserver.server import ApiServer
from ambit.local.controllers import pod_collector
from ambit.local.controllers.run import run_controllers
from tests.local.controllers.conftest import Runner, gone, ready_deployment, until, workload

Object = dict[str, Any]


async def pods_of(client: Client, app: str) -> list[Object]:
    return await client.list(PODS, "default", label_selector=f"app={app}")


async def test_a_deployment_becomes_ready_pods_spread_over_nodes(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 4))
    value = await ready_deployment(client, "web", 4)
    reasons = {item["type"]: item["reason"] for item in value["status"]["conditions"]}
    assert reasons == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
    pods = await pods_of(client, "web")
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node1", "node1", "node2", "node2"]
    messages = {event["reason"] for event in await client.list(EVENTS, "default")}
    assert {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"} <= messages


async def test_rollout_restart_undo_and_scale(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 3))
    await ready_deployment(client, "web", 3)
    before = {pod["metadata"]["uid"] for pod in await pods_of(client, "web")}
    restart = {"spec": {"template": {"metadata": {"annotations": {"restartedAt": "now"}}}}}
    await client.patch(DEPLOYMENTS, "web", restart, "default", kind=Patch.STRATEGIC)
    value = await ready_deployment(client, "web", 3)
    assert value["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in await pods_of(client, "web"))
    undo = [{"op": "remove", "path": "/spec/template/metadata/annotations"}]
    await client.patch(DEPLOYMENTS, "web", undo, "default", kind=Patch.JSON)
    value = await ready_deployment(client, "web", 3)
    assert value["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert len(await client.list(REPLICA_SETS, "default")) == 2
    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}}, "default")
    await ready_deployment(client, "web", 1)
    assert len(await pods_of(client, "web")) == 1


async def test_a_deleted_pod_is_replaced(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 2))
    await ready_deployment(client, "web", 2)
    victim = (await pods_of(client, "web"))[0]["metadata"]
    await client.delete(PODS, victim["name"], "default")
    await gone(client, PODS, victim["name"])
    await ready_deployment(client, "web", 2)
    assert victim["uid"] not in {pod["metadata"]["uid"] for pod in await pods_of(client, "web")}


async def test_an_orphaned_pod_is_adopted_and_a_relabelled_one_released(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 1))
    await ready_deployment(client, "web", 1)
    pod = (await pods_of(client, "web"))[0]["metadata"]
    await client.patch(PODS, pod["name"], {"metadata": {"labels": {"app": "debug"}}}, "default")

    async def released() -> bool:
        value = await client.get(PODS, pod["name"], "default")
        return not value["metadata"].get("ownerReferences")

    await until(released)
    await ready_deployment(client, "web", 1)
    await client.patch(PODS, pod["name"], {"metadata": {"labels": {"app": "web"}}}, "default")

    async def one_left() -> bool:
        return len(await pods_of(client, "web")) == 1

    await until(one_left)


async def test_a_service_gets_endpoints_that_follow_its_pods(client: Client) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
    await client.create(SERVICES, service, "default")
    await client.create(DEPLOYMENTS, workload("web", 2))

    def having(count: int) -> Any:
        async def check() -> bool:
            slices = await client.list(
                ENDPOINT_SLICES, "default", label_selector="kubernetes.io/service-name=web"
            )
            ready = [e for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"]]
            return len(ready) == count and all(s["ports"][0]["port"] == 8080 for s in slices if s["ports"])

        return check

    await until(having(2))
    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 0}}, "default")
    await until(having(0))
    await client.delete(SERVICES, "web", "default")

    async def none() -> bool:
        selector = "kubernetes.io/service-name=web"
        return not await client.list(ENDPOINT_SLICES, "default", label_selector=selector)

    await until(none)


async def test_the_api_server_is_a_service(client: Client) -> None:
    value = await until(lambda: client.get(ENDPOINT_SLICES, "kubernetes", "default"))
    assert value["endpoints"][0]["addresses"] == ["172.30.0.1"]
    assert value["ports"][0]["port"] == 6443
    service = await client.get(SERVICES, "kubernetes", "default")
    assert service["spec"]["clusterIP"] == "10.96.0.1"


ENVOY_FILTERS = Resource("networking.istio.io", "v1alpha3", "envoyfilters", "EnvoyFilter")
"""Its group prefers v1, which has no such kind."""


async def test_a_namespace_is_filled_and_emptied(client: Client) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await until(lambda: client.get(SERVICE_ACCOUNTS, "default", "shop"))
    root = await until(lambda: client.get(CONFIG_MAPS, "kube-root-ca.crt", "shop"))
    assert root["data"] == {"ca.crt": "PEM"}
    space = await client.get(NAMESPACES, "shop")
    assert space["metadata"]["labels"]["kubernetes.io/metadata.name"] == "shop"
    value = workload("web", 1)
    value["metadata"]["namespace"] = "shop"
    await client.create(DEPLOYMENTS, value)
    await until(lambda: client.list(PODS, "shop"))
    await client.create(ENVOY_FILTERS, {"metadata": {"name": "one", "namespace": "shop"}, "spec": {}})
    await client.delete(NAMESPACES, "shop")
    await gone(client, NAMESPACES, "shop", "")
    assert await client.list(PODS, "shop") == []
    assert await client.list(ENVOY_FILTERS, "shop") == []


async def test_deletion_in_the_background_reaches_the_pods(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 2))
    await ready_deployment(client, "web", 2)
    await client.delete(DEPLOYMENTS, "web", "default", propagation="Background")

    async def none() -> bool:
        return not await client.list(REPLICA_SETS, "default") and not await pods_of(client, "web")

    await until(none)


async def test_deletion_in_the_foreground_waits_for_the_pods(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 2))
    await ready_deployment(client, "web", 2)
    await client.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")
    await gone(client, DEPLOYMENTS, "web")
    assert await client.list(REPLICA_SETS, "default") == []
    assert await pods_of(client, "web") == []


async def test_orphaning_keeps_the_pods_and_a_new_deployment_adopts_them(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", 2))
    await ready_deployment(client, "web", 2)
    before = {pod["metadata"]["uid"] for pod in await pods_of(client, "web")}
    await client.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
    await gone(client, DEPLOYMENTS, "web")
    (orphan,) = await client.list(REPLICA_SETS, "default")
    assert not orphan["metadata"].get("ownerReferences")
    await client.create(DEPLOYMENTS, workload("web", 2))
    await ready_deployment(client, "web", 2)
    assert {pod["metadata"]["uid"] for pod in await pods_of(client, "web")} == before


async def test_an_object_of_an_owner_that_never_existed_is_collected(client: Client) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "no-such-uid"}
    child = {"metadata": {"name": "child", "namespace": "default", "ownerReferences": [owner]}, "data": {}}
    await client.create(CONFIG_MAPS, child)
    await gone(client, CONFIG_MAPS, "child")


async def test_what_a_custom_resource_owns_goes_with_it(client: Client) -> None:
    spec = {"gatewayClassName": "ambit", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}
    gateway = await client.create(GATEWAYS, {"metadata": {"name": "g"}, "spec": spec}, "default")
    owner = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "name": "g",
        "uid": gateway["metadata"]["uid"],
    }
    for name, uid in (("child", owner["uid"]), ("stray", "another-uid")):
        metadata = {"name": name, "namespace": "default", "ownerReferences": [{**owner, "uid": uid}]}
        await client.create(SERVICE_ACCOUNTS, {"metadata": metadata})
    await gone(client, SERVICE_ACCOUNTS, "stray")
    assert await client.get(SERVICE_ACCOUNTS, "child", "default")
    await client.delete(GATEWAYS, "g", "default")
    await gone(client, SERVICE_ACCOUNTS, "child")


async def test_a_daemon_set_runs_on_every_node_and_rolls(client: Client) -> None:
    value = workload("agent")
    del value["spec"]["replicas"]
    await client.create(DAEMON_SETS, value)

    def rolled(generation: int) -> Any:
        async def check() -> bool:
            found = await client.get(DAEMON_SETS, "agent", "default")
            status = found.get("status") or {}
            return bool(
                status.get("observedGeneration") == generation
                and status.get("updatedNumberScheduled") == status["desiredNumberScheduled"] == 2
                and status.get("numberAvailable") == 2
            )

        return check

    await until(rolled(1))
    pods = await pods_of(client, "agent")
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node1", "node2"]
    template = {"containers": [{"name": "c", "image": "b"}]}
    await client.patch(DAEMON_SETS, "agent", {"spec": {"template": {"spec": template}}}, "default")
    await until(rolled(2))
    images = {pod["spec"]["containers"][0]["image"] for pod in await pods_of(client, "agent")}
    assert images == {"b"}
    assert len(await client.list(CONTROLLER_REVISIONS, "default")) == 2


async def test_a_stateful_set_has_stable_names(client: Client) -> None:
    await client.create(STATEFUL_SETS, workload("db", 2, serviceName="db"))

    async def ready() -> bool:
        status = (await client.get(STATEFUL_SETS, "db", "default")).get("status") or {}
        return bool(status.get("readyReplicas") == 2)

    await until(ready)
    assert sorted(pod["metadata"]["name"] for pod in await pods_of(client, "db")) == ["db-0", "db-1"]
    await client.delete(PODS, "db-0", "default")

    async def replaced() -> bool:
        pod = await client.get(PODS, "db-0", "default")
        return pod["spec"]["hostname"] == "db-0" and not pod["metadata"].get("deletionTimestamp")

    await until(replaced)
    await until(ready)


async def test_a_job_completes(client: Client) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "once"}]}}
    job = {"metadata": {"name": "j"}, "spec": {"completions": 2, "template": template}}
    await client.create(JOBS, job, "default")

    async def complete() -> bool:
        status = (await client.get(JOBS, "j", "default")).get("status") or {}
        return any(item["type"] == "Complete" for item in status.get("conditions") or ())

    await until(complete)
    assert (await client.get(JOBS, "j", "default"))["status"]["succeeded"] == 2


async def test_a_pod_that_fits_nowhere_says_so_until_a_node_fits(client: Client) -> None:
    pod = {
        "metadata": {"name": "picky", "namespace": "default"},
        "spec": {"nodeSelector": {"gpu": "yes"}, "containers": [{"name": "c", "image": "a"}]},
    }
    await client.create(PODS, pod)

    async def unschedulable() -> bool:
        status = (await client.get(PODS, "picky", "default")).get("status") or {}
        return any(item.get("reason") == "Unschedulable" for item in status.get("conditions") or ())

    await until(unschedulable)
    await client.patch(NODES, "node2", {"metadata": {"labels": {"gpu": "yes"}}})

    async def placed() -> bool:
        return bool((await client.get(PODS, "picky", "default"))["spec"].get("nodeName") == "node2")

    await until(placed)


async def test_reading_what_is_not_there(client: Client) -> None:
    try:
        await client.get(PODS, "nobody", "default")
    except NotFound as error:
        assert error.message == 'pods "nobody" not found'
    else:
        raise AssertionError("found")


async def test_pods_of_a_vanished_node_are_replaced_elsewhere(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_collector, "QUARANTINE", 0.1)
    await client.create(DEPLOYMENTS, workload("web", 2))
    await ready_deployment(client, "web", 2)
    await client.delete(NODES, "node2")

    async def moved() -> bool:
        pods = await pods_of(client, "web")
        return [pod["spec"].get("nodeName") for pod in pods] == ["node1", "node1"]

    await until(moved)


async def test_controllers_that_are_killed_mid_way_finish_after_a_restart(
    server: ApiServer, tmp_path: Path
) -> None:
    """Whatever was in their memory is gone; the objects are all they need."""
    async with Client.over_unix(tmp_path / "api.sock") as client:
        await client.create(NODES, {"metadata": {"name": "node1"}})
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        await client.patch(NODES, "node1", {"status": ready}, subresource="status")
        await client.create(DEPLOYMENTS, workload("web", 12))
        runner = asyncio.create_task(Runner(client).run())
        for seen in (3, 6, 9, 12):
            controllers = asyncio.create_task(run_controllers(client, cluster_ca="PEM"))

            async def enough(count: int = seen) -> bool:
                return len(await pods_of(client, "web")) >= count

            await until(enough)
            controllers.cancel()
            await asyncio.wait((controllers,))
        controllers = asyncio.create_task(run_controllers(client, cluster_ca="PEM"))
        await ready_deployment(client, "web", 12)
        assert len(await pods_of(client, "web")) == 12
        assert len(await client.list(REPLICA_SETS, "default")) == 1
        controllers.cancel()
        runner.cancel()
        await asyncio.wait((controllers, runner))
