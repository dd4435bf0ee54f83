"""What EndpointSlices a Service gets."""

from typing import Any

from ambit.local.controllers.endpoint_slice import plan_slices

Object = dict[str, Any]


def service(**spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "ports": ports, "ipFamilies": ["IPv4"], **spec},
    }


def pod(name: str, ready: bool = True, deleting: bool = False, **spec: Any) -> Object:
    number = int(name.removeprefix("p"))
    metadata: Object = {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    addresses = [{"ip": f"10.244.1.{number}"}, {"ip": f"fd00:10:244:1::{number:x}"}]
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node1", "containers": [], **spec},
        "status": {"phase": "Running", "podIPs": addresses, "conditions": [condition]},
    }


def only(slices: dict[str, Object]) -> Object:
    (value,) = slices.values()
    return value


def test_conditions_zone_target_and_labels() -> None:
    value = only(plan_slices(service(), [pod("p1"), pod("p2", ready=False)], {"node1": "z1"}))
    first, second = value["endpoints"]
    assert first["addresses"] == ["10.244.1.1"]
    assert first["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert (first["nodeName"], first["zone"]) == ("node1", "z1")
    assert first["targetRef"] == {"kind": "Pod", "namespace": "default", "name": "p1", "uid": "p1"}
    assert second["conditions"] == {"ready": False, "serving": False, "terminating": False}
    assert value["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert value["metadata"]["labels"]["team"] == "x"
    assert value["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]


def test_a_terminating_pod_still_serves_but_is_not_ready() -> None:
    value = only(plan_slices(service(), [pod("p1", deleting=True)], {}))
    assert value["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_published_although_not_ready() -> None:
    value = only(plan_slices(service(publishNotReadyAddresses=True), [pod("p1", ready=False)], {}))
    assert value["endpoints"][0]["conditions"]["ready"] is True


def test_dual_stack_gives_a_slice_per_family() -> None:
    slices = plan_slices(service(ipFamilies=["IPv4", "IPv6"]), [pod("p1")], {})
    found = {value["addressType"]: value["endpoints"][0]["addresses"] for value in slices.values()}
    assert found == {"IPv4": ["10.244.1.1"], "IPv6": ["fd00:10:244:1::1"]}


def test_named_ports_are_resolved_per_pod() -> None:
    def with_port(name: str, number: int) -> Object:
        port = {"name": "web", "containerPort": number, "protocol": "TCP"}
        return pod(name, containers=[{"name": "c", "ports": [port]}])

    ports = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]
    pods = [with_port("p1", 8080), with_port("p2", 9090), pod("p3")]
    slices = plan_slices(service(ports=ports), pods, {})
    found = {value["ports"][0]["port"]: len(value["endpoints"]) for value in slices.values()}
    assert found == {8080: 1, 9090: 1}


def test_a_service_without_pods_has_an_empty_slice() -> None:
    value = only(plan_slices(service(), [], {}))
    assert value["endpoints"] == []


def test_ended_pods_and_strangers_are_left_out() -> None:
    ended, stranger = pod("p1"), pod("p2")
    ended["status"]["phase"] = "Succeeded"
    stranger["metadata"]["labels"] = {"app": "other"}
    assert only(plan_slices(service(), [ended, stranger], {}))["endpoints"] == []


def test_more_than_a_hundred_are_cut_into_slices() -> None:
    slices = plan_slices(service(), [pod(f"p{n}") for n in range(1, 251)], {})
    assert sorted(len(value["endpoints"]) for value in slices.values()) == [50, 100, 100]
    assert len(slices) == 3


def test_a_headless_service_names_hosts() -> None:
    value = only(plan_slices(service(clusterIP="None"), [pod("p1", hostname="p1", subdomain="web")], {}))
    assert value["endpoints"][0]["hostname"] == "p1"
    assert value["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
