"""Objects over HTTP: create, read, update, delete, and the failures clients depend on."""

from pathlib import Path
from typing import Any

import pytest

from ambit.local.apiserver.server import ApiServer, ApiSettings
from tests.local.apiserver.conftest import Client

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, **labels: str) -> dict[str, Any]:
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


async def test_create_sets_what_the_server_owns(client: Client) -> None:
    made = await client.make(DEPLOYMENTS, deployment("web"))
    metadata = made["metadata"]
    assert metadata["uid"] and metadata["creationTimestamp"].endswith("Z") and metadata["generation"] == 1
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert made["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


async def test_missing_and_duplicate_objects(client: Client) -> None:
    status, body = await client.call("GET", f"{PODS}/none")
    assert (status, body["reason"]) == (404, "NotFound")
    assert body["message"] == 'pods "none" not found'
    await client.make(MAPS, config_map("a"))
    status, body = await client.call("POST", MAPS, config_map("a"))
    assert (status, body["reason"]) == (409, "AlreadyExists")
    status, body = await client.call("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))
    assert (status, body["message"]) == (404, 'namespaces "nowhere" not found')


async def test_a_stale_update_is_refused_and_a_no_op_keeps_the_version(client: Client) -> None:
    first = await client.make(MAPS, config_map("a", k="1"))
    second = {**first, "data": {"k": "2"}}
    status, changed = await client.call("PUT", f"{MAPS}/a", second)
    assert status == 200
    assert int(changed["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    status, body = await client.call("PUT", f"{MAPS}/a", second)
    assert (status, body["reason"]) == (409, "Conflict")
    status, same = await client.call("PUT", f"{MAPS}/a", changed)
    assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_invalid_objects_name_the_field(client: Client) -> None:
    body = deployment("web")
    body["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    body["spec"]["replicas"] = -1
    status, answer = await client.call("POST", DEPLOYMENTS, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    fields = {cause["field"] for cause in answer["details"]["causes"]}
    assert fields == {"spec.replicas", "spec.template.metadata.labels"}
    assert answer["message"].startswith('Deployment.apps "web" is invalid: [spec.replicas: Invalid value: -1')


async def test_unknown_fields_follow_field_validation(client: Client) -> None:
    body = deployment("web")
    body["spec"]["foo"] = 1
    status, answer = await client.call("POST", DEPLOYMENTS, body, fieldValidation="Strict")
    assert status == 400
    assert answer["message"].endswith('strict decoding error: unknown field "spec.foo"')
    made = await client.make(DEPLOYMENTS, body, fieldValidation="Ignore")
    assert "foo" not in made["spec"]


async def test_status_and_spec_are_separate(client: Client) -> None:
    made = await client.make(DEPLOYMENTS, deployment("web"))
    made["status"] = {"replicas": 3}
    made["spec"]["replicas"] = 5
    _, after = await client.call("PUT", f"{DEPLOYMENTS}/web/status", made)
    assert (after["status"], after["spec"]["replicas"]) == ({"replicas": 3}, 1)
    assert after["metadata"]["generation"] == 1
    after["spec"]["replicas"] = 5
    after["status"] = {}
    _, last = await client.call("PUT", f"{DEPLOYMENTS}/web", after)
    assert (last["status"], last["spec"]["replicas"]) == ({"replicas": 3}, 5)
    assert last["metadata"]["generation"] == 2


async def test_finalizers_hold_an_object(client: Client) -> None:
    body = config_map("held")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await client.make(MAPS, body)
    status, held = await client.call("DELETE", f"{MAPS}/held")
    assert status == 200 and held["metadata"]["deletionTimestamp"]
    held["metadata"]["finalizers"] = []
    status, _ = await client.call("PUT", f"{MAPS}/held", held)
    assert status == 200
    status, _ = await client.call("GET", f"{MAPS}/held")
    assert status == 404


async def test_a_terminating_namespace_admits_nothing(client: Client) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}}
    await client.make("/api/v1/namespaces", space)
    status, body = await client.call("DELETE", "/api/v1/namespaces/gone")
    assert (status, body["status"]["phase"]) == (200, "Terminating")
    status, answer = await client.call("POST", "/api/v1/namespaces/gone/configmaps", config_map("a"))
    assert (status, answer["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
    body["spec"]["finalizers"] = []
    status, _ = await client.call("PUT", "/api/v1/namespaces/gone/finalize", body)
    assert status == 200
    status, _ = await client.call("GET", "/api/v1/namespaces/gone")
    assert status == 404


async def test_services_get_addresses_of_their_families(client: Client) -> None:
    path = "/api/v1/namespaces/default/services"
    spec = {"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    made = await client.make(path, body)
    assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert made["spec"]["clusterIP"] == made["spec"]["clusterIPs"][0]
    assert made["spec"]["clusterIPs"][1].startswith("fd00:10:96::")
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    clash = {**body, "metadata": {"name": "b"}, "spec": {**spec, "clusterIP": made["spec"]["clusterIP"]}}
    status, answer = await client.call("POST", path, clash)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.clusterIPs[0]")


MERGE = "application/merge-patch+json"


async def test_the_address_of_a_service_does_not_change(client: Client) -> None:
    path = "/api/v1/namespaces/default/services"
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}]},
    }
    made = await client.make(path, body)
    for patch in ({"clusterIP": "10.96.0.99"}, {"clusterIPs": ["10.96.0.99"]}):
        status, answer = await client.call("PATCH", f"{path}/web", {"spec": patch}, media=MERGE)
        assert status == 422
        [cause] = answer["details"]["causes"]
        assert cause["field"] == "spec.clusterIPs[0]"
        assert "may not change once set" in cause["message"]
    for patch in (
        {"clusterIP": ""},
        {"clusterIP": None, "clusterIPs": None},
        {"clusterIP": made["spec"]["clusterIP"]},
    ):
        status, answer = await client.call("PATCH", f"{path}/web", {"spec": patch}, media=MERGE)
        assert (status, answer["spec"]["clusterIP"]) == (200, made["spec"]["clusterIP"])
        assert answer["spec"]["clusterIPs"] == made["spec"]["clusterIPs"]
    free = {**body, "metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.99"}}
    assert (await client.make(path, free))["spec"]["clusterIP"] == "10.96.0.99"


async def test_everything_acknowledged_survives_a_restart(tmp_path: Path) -> None:
    settings = ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite", bundles=())
    first = ApiServer(settings, None)
    namespace = first.store.get("namespaces", "", "default")
    version = first.store.revision
    first.store.close()
    second = ApiServer(settings, None)
    assert second.store.revision == version
    assert second.store.get("namespaces", "", "default") == namespace
    second.store.close()


@pytest.mark.parametrize("selector", ["app=a", "app in (a,b),!gone", "app!=c,app"])
async def test_label_selectors(client: Client, selector: str) -> None:
    for name in ("a", "c"):
        body = config_map(name)
        body["metadata"]["labels"] = {"app": name}
        await client.make(MAPS, body)
    found = await client.get(MAPS, labelSelector=selector)
    assert [item["metadata"]["name"] for item in found["items"]] == ["a"]


async def test_pages(client: Client) -> None:
    for index in range(5):
        await client.make(MAPS, config_map(f"m{index}"))
    names: list[str] = []
    query = {"limit": "2"}
    while True:
        page = await client.get(MAPS, **query)
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
        if not token:
            break
        assert page["metadata"]["remainingItemCount"] == 5 - len(names)
        query = {"limit": "2", "continue": token}
    assert names == [f"m{index}" for index in range(5)]


@pytest.mark.parametrize(
    ("family", "address", "hostname", "port", "field"),
    [
        ("IPv4", "999.1.1.1", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "010.0.0.1", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "10.0.0.1\n", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "fd00::1", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "127.0.0.1", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "169.254.7.127", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "224.0.0.1", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "0.0.0.0", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv6", "::ffff:127.0.0.1", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv6", "fd00::1%eth0", "a", 80, "endpoints[0].addresses[0]"),
        ("IPv4", "10.0.0.1", "a.b", 80, "endpoints[0].hostname"),
        ("IPv4", "10.0.0.1", "a", 70000, "ports[0].port"),
    ],
)
async def test_endpoints_that_nothing_can_be_sent_to_are_refused(
    client: Client, family: str, address: str, hostname: str, port: int, field: str
) -> None:
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "odd"},
        "addressType": family,
        "endpoints": [{"addresses": [address], "hostname": hostname}],
        "ports": [{"port": port}],
    }
    status, answer = await client.call("POST", path, body)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, field)


async def test_a_network_policy_is_stored_with_a_warning(client: Client) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {}},
    }
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    async with client.session.post(path, json=policy) as response:
        assert response.status == 201
        (warning,) = response.headers.getall("Warning")
    assert "NetworkPolicy default/closed is stored and not enforced" in warning
