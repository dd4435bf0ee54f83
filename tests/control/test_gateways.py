"""Waypoints of a whole control plane, against our API server: their objects, and what statuses say."""

import asyncio
from typing import Any

import pytest

from ambit.control.gateways import controller, leaving
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.informer import Informer
from tests.control.test_process import client, ensure, eventually, make_pod, running

__all__ = ["client"]

OBJECTS = (kinds.SERVICE_ACCOUNTS, kinds.SERVICES, kinds.DEPLOYMENTS)
GATEWAY: dict[str, Any] = {
    "metadata": {"name": "waypoint", "namespace": "shop"},
    "spec": {
        "gatewayClassName": "ambit-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    },
}
ROUTE: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
    },
}


def web(**labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "shop", "labels": labels},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    }


async def exists(client: Client, kind: kinds.Resource, name: str = "waypoint") -> bool:
    try:
        await client.get(kind, name, "shop")
    except NotFound:
        return False
    return True


async def conditions(client: Client, kind: kinds.Resource, name: str) -> dict[str, tuple[str, str]]:
    """Of an object, or of a route's only parent."""
    status = (await client.get(kind, name, "shop")).get("status") or {}
    said = status.get("conditions") or [
        each for parent in status.get("parents") or () for each in parent["conditions"]
    ]
    return {each["type"]: (each["status"], each["reason"]) for each in said}


async def test_a_gateway_gets_what_makes_it_run(client: Client) -> None:
    async with running(client):
        await eventually(lambda: exists(client, kinds.GATEWAY_CLASSES, "istio-waypoint"))
        await client.create(kinds.GATEWAYS, GATEWAY)
        for kind in OBJECTS:
            await eventually(lambda kind=kind: exists(client, kind))
        said = await eventually(
            lambda: conditions(client, kinds.GATEWAYS, "waypoint"),
            lambda found: found.get("Programmed") == ("False", "Pending"),
        )
        assert said["Accepted"] == ("True", "Accepted")
        # What somebody takes away comes back.
        for kind in OBJECTS:
            await client.delete(kind, "waypoint", "shop")
            await eventually(lambda kind=kind: exists(client, kind))
        await make_pod(client, "shop", "waypoint", "waypoint-0")
        labels = {"metadata": {"labels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}}}
        await client.patch(kinds.PODS, "waypoint-0", labels, "shop")
        await eventually(
            lambda: conditions(client, kinds.GATEWAYS, "waypoint"),
            lambda found: found.get("Programmed") == ("True", "Programmed"),
        )
        gateway = await client.get(kinds.GATEWAYS, "waypoint", "shop")
        service = await client.get(kinds.SERVICES, "waypoint", "shop")
        assert [each["value"] for each in gateway["status"]["addresses"]] == service["spec"]["clusterIPs"]
        of_class = await client.get(kinds.GATEWAY_CLASSES, "ambit-waypoint")
        assert {each["type"]: each["status"] for each in of_class["status"]["conditions"]} == {
            "Accepted": "True"
        }


async def test_what_changes_in_the_gateway_changes_its_objects(client: Client) -> None:
    async def label() -> Any:
        found = await client.get(kinds.DEPLOYMENTS, "waypoint", "shop")
        return found["spec"]["template"]["metadata"]["labels"].get("team")

    async with running(client):
        await client.create(kinds.GATEWAYS, GATEWAY)
        await eventually(lambda: exists(client, kinds.DEPLOYMENTS))
        await client.patch(
            kinds.GATEWAYS, "waypoint", {"spec": {"infrastructure": {"labels": {"team": "a"}}}}, "shop"
        )
        await eventually(label, lambda found: found == "a")
        await client.patch(kinds.DEPLOYMENTS, "waypoint", {"spec": {"replicas": 3}}, "shop")
        await client.patch(
            kinds.GATEWAYS, "waypoint", {"spec": {"infrastructure": {"labels": {"team": "b"}}}}, "shop"
        )
        await eventually(label, lambda found: found == "b")
        found = await client.get(kinds.DEPLOYMENTS, "waypoint", "shop")
        assert found["spec"]["replicas"] == 3, "whoever scales it keeps it"


WANTED = {"metadata": {"name": "wanted", "namespace": "shop"}}
WITH_PARAMETERS: dict[str, Any] = {
    **GATEWAY,
    "spec": {
        **GATEWAY["spec"],
        "infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "wanted"}},
    },
}
SCALERS = (kinds.HORIZONTAL_POD_AUTOSCALERS, kinds.POD_DISRUPTION_BUDGETS)


async def replicas(client: Client) -> int:
    return int((await client.get(kinds.DEPLOYMENTS, "waypoint", "shop"))["spec"]["replicas"])


async def say(client: Client, **patches: str | None) -> None:
    names = {"autoscaler": "horizontalPodAutoscaler", "budget": "podDisruptionBudget"}
    said = {names.get(key, key): text for key, text in patches.items()}
    await client.patch(kinds.CONFIG_MAPS, "wanted", {"data": said}, "shop")


@pytest.mark.feature("F61")
async def test_what_a_config_map_wants_is_made_and_follows_it(client: Client) -> None:
    scaler, budget = "spec: {minReplicas: 2, maxReplicas: 5}", "spec: {minAvailable: 1}"
    data = {"deployment": "spec: {replicas: 3}", "service": "spec: {type: NodePort}"}
    data |= {"horizontalPodAutoscaler": scaler, "podDisruptionBudget": budget}
    await client.create(kinds.CONFIG_MAPS, {**WANTED, "data": data})
    async with running(client):
        await client.create(kinds.GATEWAYS, WITH_PARAMETERS)
        for kind in (*OBJECTS, *SCALERS):
            await eventually(lambda kind=kind: exists(client, kind))
        assert await replicas(client) == 3
        assert (await client.get(kinds.SERVICES, "waypoint", "shop"))["spec"]["type"] == "NodePort"
        made, kept = [await client.get(kind, "waypoint", "shop") for kind in SCALERS]
        assert made["spec"]["scaleTargetRef"]["name"] == "waypoint" and made["spec"]["maxReplicas"] == 5
        assert kept["spec"]["selector"]["matchLabels"] == {
            "gateway.networking.k8s.io/gateway-name": "waypoint"
        }
        assert kept["metadata"]["ownerReferences"][0]["kind"] == "Gateway"
        # The autoscaler scales, and what it has scaled to stays when something else changes.
        await client.patch(kinds.DEPLOYMENTS, "waypoint", {"spec": {"replicas": 4}}, "shop")
        await say(client, autoscaler="spec: {minReplicas: 2, maxReplicas: 9}")

        async def most() -> Any:
            return (await client.get(SCALERS[0], "waypoint", "shop"))["spec"]["maxReplicas"]

        await eventually(most, lambda found: found == 9)
        assert await replicas(client) == 4
        # Somebody takes them away: they come back. Nobody wants them any more: they go.
        for kind in SCALERS:
            await client.delete(kind, "waypoint", "shop")
            await eventually(lambda kind=kind: exists(client, kind))
        await say(client, autoscaler=None, budget=None)
        for kind in SCALERS:
            await eventually(lambda kind=kind: exists(client, kind), lambda found: not found)
        await eventually(lambda: replicas(client), lambda found: found == 3)
        await say(client, deployment="spec: {replicas: 2}")
        await eventually(lambda: replicas(client), lambda found: found == 2)


async def test_parameters_that_cannot_be_had_leave_what_there_is(client: Client) -> None:
    await client.create(kinds.CONFIG_MAPS, {**WANTED, "data": {"deployment": "spec: {replicas: 3}"}})

    async def accepted() -> Any:
        return (await conditions(client, kinds.GATEWAYS, "waypoint")).get("Accepted")

    async with running(client):
        await client.create(kinds.GATEWAYS, WITH_PARAMETERS)
        await eventually(accepted, lambda found: found == ("True", "Accepted"))
        await eventually(lambda: exists(client, kinds.DEPLOYMENTS))
        await say(client, deployment="{metadata: {name: other}, spec: {replicas: 1}}")
        await eventually(accepted, lambda found: found == ("False", "InvalidParameters"))
        await say(client, deployment="spec: {replicas: -1}")

        async def message() -> str:
            gateway = await client.get(kinds.GATEWAYS, "waypoint", "shop")
            return " ".join(each["message"] for each in gateway["status"]["conditions"])

        refused = "with its parameters Deployment shop/waypoint is refused"
        await eventually(message, lambda found: refused in found)
        assert await accepted() == ("False", "InvalidParameters") and await replicas(client) == 3
        await client.delete(kinds.CONFIG_MAPS, "wanted", "shop")
        await eventually(message, lambda found: "ConfigMap shop/wanted does not exist" in found)
        assert await replicas(client) == 3 and await exists(client, kinds.SERVICES)
        await client.create(kinds.CONFIG_MAPS, {**WANTED, "data": {"deployment": "spec: {replicas: 2}"}})
        await eventually(accepted, lambda found: found == ("True", "Accepted"))
        await eventually(lambda: replicas(client), lambda found: found == 2)


async def of_class(client: Client, name: str, **spec: Any) -> None:
    await client.patch(kinds.GATEWAYS, "waypoint", {"spec": {"gatewayClassName": name, **spec}}, "shop")


async def programmed(client: Client) -> Any:
    return (await conditions(client, kinds.GATEWAYS, "waypoint")).get("Programmed")


async def test_a_waypoint_that_becomes_inline_has_nothing_left(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what is not its own; and when it is to have pods again, it has."""
    monkeypatch.setattr(leaving, "LEFT_AFTER", 5.0)
    data = {
        "horizontalPodAutoscaler": "spec: {maxReplicas: 5}",
        "podDisruptionBudget": "spec: {minAvailable: 1}",
    }
    await client.create(kinds.CONFIG_MAPS, {**WANTED, "data": data})
    async with running(client):
        await client.create(kinds.GATEWAYS, WITH_PARAMETERS)
        for kind in (*OBJECTS, *SCALERS):
            await eventually(lambda kind=kind: exists(client, kind))
        owners = (await client.get(kinds.SERVICES, "waypoint", "shop"))["metadata"]["ownerReferences"]
        made = {"name": "made-by-somebody", "namespace": "shop"}
        await client.create(kinds.SERVICE_ACCOUNTS, {"metadata": {**made, "ownerReferences": owners}})
        for _ in range(2):
            await of_class(client, "ambit-inline", infrastructure=None)
            await eventually(lambda: programmed(client), lambda found: found == ("True", "Programmed"))
            assert all([await exists(client, kind) for kind in OBJECTS]), "callers may be on their way there"
            for kind in (*OBJECTS, *SCALERS):
                await eventually(lambda kind=kind: exists(client, kind), lambda found: not found)
            assert await exists(client, kinds.SERVICE_ACCOUNTS, "made-by-somebody")
            await of_class(client, "ambit-waypoint")
            for kind in OBJECTS:
                await eventually(lambda kind=kind: exists(client, kind))


async def test_who_comes_back_in_time_has_kept_what_there_was(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "LEFT_AFTER", 8.0)
    loop = asyncio.get_running_loop()
    async with running(client):
        await client.create(kinds.GATEWAYS, GATEWAY)
        for kind in OBJECTS:
            await eventually(lambda kind=kind: exists(client, kind))
        before = await client.get(kinds.DEPLOYMENTS, "waypoint", "shop")
        await of_class(client, "ambit-inline")
        await eventually(lambda: programmed(client), lambda found: found == ("True", "Programmed"))
        since = loop.time()
        await of_class(client, "ambit-waypoint")
        await eventually(lambda: programmed(client), lambda found: found == ("False", "Pending"))

        async def over() -> bool:
            return loop.time() > since + 8.5

        await eventually(over)
        after = await client.get(kinds.DEPLOYMENTS, "waypoint", "shop")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]


HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}


async def only(client: Client, name: str) -> None:
    """Of all names that it has by its classes, it comes to have the objects of one only."""
    for each in ("waypoint", "waypoint-ambit", "waypoint-istio"):
        for kind in OBJECTS:
            await eventually(
                lambda kind=kind, each=each: exists(client, kind, each),
                lambda found, wanted=each == name: found == wanted,
            )


async def test_a_gateway_that_becomes_a_waypoint_and_back_keeps_nothing_of_before(client: Client) -> None:
    """Services of both would find the pods of both: their selectors are the Gateway's name."""
    async with running(client):
        await client.create(kinds.GATEWAYS, GATEWAY)
        await only(client, "waypoint")
        owners = (await client.get(kinds.SERVICES, "waypoint", "shop"))["metadata"]["ownerReferences"]
        made = {"name": "made-by-somebody", "namespace": "shop", "ownerReferences": owners}
        await client.create(kinds.SERVICE_ACCOUNTS, {"metadata": made})
        await of_class(client, "ambit", listeners=[HTTP])
        await only(client, "waypoint-ambit")
        await of_class(client, "ambit-waypoint", listeners=GATEWAY["spec"]["listeners"])
        await only(client, "waypoint")
        assert await exists(client, kinds.SERVICE_ACCOUNTS, "made-by-somebody")


async def test_pods_of_another_class_of_the_edge_wait_for_those_that_follow(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "LOOK_AGAIN", 0.05)
    async with running(client):
        edge = {**GATEWAY["spec"], "gatewayClassName": "ambit", "listeners": [HTTP]}
        await client.create(kinds.GATEWAYS, {**GATEWAY, "spec": edge})
        await only(client, "waypoint-ambit")
        await of_class(client, "istio")
        for kind in OBJECTS:
            await eventually(lambda kind=kind: exists(client, kind, "waypoint-istio"))
        assert all([await exists(client, kind, "waypoint-ambit") for kind in OBJECTS]), "they serve"
        ready = {"status": {"replicas": 1, "readyReplicas": 1}}
        await client.patch(kinds.DEPLOYMENTS, "waypoint-istio", ready, "shop", subresource="status")
        await only(client, "waypoint-istio")


async def test_an_object_of_somebody_else_is_left_alone(client: Client) -> None:
    mine = {"metadata": {"name": "waypoint", "namespace": "shop", "labels": {"mine": "yes"}}}
    await client.create(kinds.SERVICE_ACCOUNTS, mine)
    async with running(client):
        await client.create(kinds.GATEWAYS, GATEWAY)
        await eventually(
            lambda: conditions(client, kinds.GATEWAYS, "waypoint"),
            lambda found: found.get("Programmed") == ("False", "NoResources"),
        )
        account = await client.get(kinds.SERVICE_ACCOUNTS, "waypoint", "shop")
        assert account["metadata"]["labels"] == {"mine": "yes"}
        assert not await exists(client, kinds.DEPLOYMENTS)
        await client.delete(kinds.SERVICE_ACCOUNTS, "waypoint", "shop")
        await client.patch(kinds.GATEWAYS, "waypoint", {"metadata": {"labels": {"again": "yes"}}}, "shop")
        await eventually(lambda: exists(client, kinds.DEPLOYMENTS))
        await eventually(
            lambda: conditions(client, kinds.GATEWAYS, "waypoint"),
            lambda found: found.get("Programmed") == ("False", "Pending"),
        )


async def test_a_route_and_its_service_say_what_became_of_them(client: Client) -> None:
    await client.create(kinds.SERVICES, web())
    await client.create(kinds.HTTP_ROUTES, ROUTE)
    await client.create(kinds.GATEWAYS, GATEWAY)
    async with running(client):

        async def route() -> dict[str, tuple[str, str]]:
            return await conditions(client, kinds.HTTP_ROUTES, "web")

        async def bound() -> Any:
            return (await conditions(client, kinds.SERVICES, "web")).get("istio.io/WaypointBound")

        await eventually(route, lambda found: found.get("Accepted") == ("False", "NoWaypoint"))
        label = {"metadata": {"labels": {"istio.io/use-waypoint": "waypoint"}}}
        await client.patch(kinds.SERVICES, "web", label, "shop")
        await eventually(route, lambda found: found.get("Accepted") == ("True", "Accepted"))
        await eventually(bound, lambda found: found == ("True", "WaypointAccepted"))
        await client.patch(
            kinds.SERVICES, "web", {"metadata": {"labels": {"istio.io/use-waypoint": None}}}, "shop"
        )
        await eventually(bound, lambda found: found is None)


async def test_the_gateway_api_may_come_later(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "CLASSES_AGAIN", 0.1)
    monkeypatch.setitem(Informer.__init__.__kwdefaults__, "missing_retry", 0.1)
    definitions = []
    for kind in ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"):
        found = await client.get(kinds.CUSTOM_RESOURCE_DEFINITIONS, f"{kind}.gateway.networking.k8s.io")
        metadata = {key: found["metadata"][key] for key in ("name", "annotations")}
        definitions.append({**found, "metadata": metadata, "status": {}})
        await client.delete(kinds.CUSTOM_RESOURCE_DEFINITIONS, metadata["name"])
    async with running(client):  # ready without it
        await ensure(client, kinds.SERVICES, web())
        for definition in definitions:
            await client.create(kinds.CUSTOM_RESOURCE_DEFINITIONS, definition)
        await eventually(lambda: exists(client, kinds.GATEWAY_CLASSES, "ambit-waypoint"))
        await client.create(kinds.GATEWAYS, GATEWAY)
        await eventually(lambda: exists(client, kinds.DEPLOYMENTS))
