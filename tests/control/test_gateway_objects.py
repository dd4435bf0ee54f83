"""What makes a waypoint run, and what a status value means for a live object."""

import datetime as dt
import json
from typing import Any

import msgspec
import pytest

from ambit.control.gateways.objects import ProxyPods, gateway_objects
from ambit.control.statuses.status_fields import to_withdraw, to_write
from ambit.core.finding import ObjectRef
from ambit.core.names import GATEWAY_CLASS_NAMES
from ambit.ingest.gateway.client_certificates import INSECURE
from ambit.ingest.gateway.conditions import WAYPOINT_BOUND
from ambit.ingest.gateway.edge import compiled_edge
from ambit.ingest.gateway.gateways import compiled_waypoint
from ambit.ingest.patch_limits import PatchLimits
from ambit.ingest.settings import MeshSettings
from ambit.ingest.visibility import VISIBILITY_APPLIED
from ambit.model.proxy import Listener, Protocol, Proxy, ProxyKind, TlsTerms
from ambit.model.status import (
    Condition,
    GatewayStatus,
    ListenerStatus,
    ObjectStatus,
    Parent,
    ParentStatus,
    RouteStatus,
    Version,
)
from ambit.objects.gateway import Gateway, ReferenceGrant
from tests.ingest.gateway.build import edge, waypoint

PODS = ProxyPods("hub/ambit:1", "Always", "td", "c1", "mesh-system")
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
THEN = "2025-01-01T00:00:00Z"
ACCEPTED = Condition("Accepted", "True", "Accepted")


def gateway(**given: Any) -> Gateway:
    _, body = waypoint(**given)
    return msgspec.json.decode(json.dumps(body), type=Gateway)


class NoSecrets:
    """Nothing to refer to."""

    def secret(self, key: str) -> None:
        return None

    def grants(self, namespace: str) -> list[ReferenceGrant]:
        return []


def proxy_of(given: Gateway) -> Proxy:
    """What is compiled of it."""
    settings = MeshSettings()
    if given.spec.gateway_class_name in GATEWAY_CLASS_NAMES:
        proxy = compiled_edge(given, NoSecrets(), settings).proxy
    else:
        proxy = compiled_waypoint(given, None, ProxyKind.WAYPOINT, settings).proxy
    assert proxy is not None
    return proxy


def made(given: Gateway) -> dict[str, dict[str, Any]]:
    return {resource.kind: value for resource, value in gateway_objects(given, proxy_of(given), PODS)}


def test_all_objects_have_the_gateways_name_its_labels_and_go_with_it() -> None:
    objects = made(gateway())
    assert list(objects) == ["ServiceAccount", "Service", "Deployment"]
    for value in objects.values():
        metadata = value["metadata"]
        assert (metadata["name"], metadata["namespace"]) == ("waypoint", "default")
        assert metadata["labels"] == {
            "gateway.networking.k8s.io/gateway-name": "waypoint",
            "gateway.networking.k8s.io/gateway-class-name": "ambit-waypoint",
            "gateway.istio.io/managed": "istio.io-mesh-controller",
        }
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Gateway", "u", True)


def test_the_service_leads_to_the_pods() -> None:
    objects = made(gateway())
    service, pod = objects["Service"], objects["Deployment"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert (
        objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    )
    assert {each["name"]: each["port"] for each in service["spec"]["ports"]} == {
        "mesh": 15008,
        "status-port": 15021,
    }
    assert service["metadata"]["annotations"]["networking.istio.io/traffic-distribution"] == "PreferClose"


def test_the_pod_is_no_client_of_the_mesh_and_has_no_rights() -> None:
    pod = made(gateway())["Deployment"]["spec"]["template"]
    assert pod["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "waypoint" and spec["securityContext"]["runAsNonRoot"]
    (container,) = spec["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("hub/ambit:1", "Always")
    assert container["args"] == ["proxy", "keep", "--gateway", "waypoint", "--trust-domain", "td"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["CA_ADDRESS"] == "istiod.mesh-system.svc:15012"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["volumes"]}


def test_infrastructure_adds_labels_and_annotations_and_replaces_none_of_ours() -> None:
    given = {
        "labels": {"team": "a", "istio.io/dataplane-mode": "ambient", "gateway.istio.io/managed": "other"},
        "annotations": {"note": "x"},
    }
    objects = made(gateway(infrastructure=given))
    pod = objects["Deployment"]["spec"]["template"]["metadata"]
    for metadata in (*(each["metadata"] for each in objects.values()), pod):
        assert metadata["labels"]["team"] == "a" and metadata["annotations"]["note"] == "x"
        assert metadata["labels"]["gateway.istio.io/managed"] == "istio.io-mesh-controller"
    assert pod["labels"]["istio.io/dataplane-mode"] == "none"


def test_what_gives_pods_rights_or_containers_is_on_the_service_only() -> None:
    """Webhooks and clouds obey annotations of what runs; whoever writes a Gateway need not have that."""
    role = "eks.amazonaws.com/role-arn"
    given = gateway(infrastructure={"annotations": {role: "x", "note": "y", "prometheus.io/port": "9"}})

    def with_role(pods: ProxyPods) -> list[str]:
        objects = gateway_objects(given, proxy_of(given), pods)
        all_metadata = {resource.kind: value["metadata"] for resource, value in objects}
        all_metadata["Pod"] = objects[-1][1]["spec"]["template"]["metadata"]
        assert all(each["annotations"]["prometheus.io/port"] == "9" for each in all_metadata.values())
        return sorted(kind for kind, each in all_metadata.items() if role in each["annotations"])

    assert with_role(PODS) == ["Service"]
    admitting = msgspec.structs.replace(PODS, limits=PatchLimits((role,)))
    assert with_role(admitting) == ["Deployment", "Pod", "Service", "ServiceAccount"]


@pytest.mark.parametrize(("wanted", "found"), [("LoadBalancer", "LoadBalancer"), ("Nonsense", "ClusterIP")])
def test_the_type_of_the_service(wanted: str, found: str) -> None:
    given = gateway()
    metadata = msgspec.structs.replace(
        given.metadata, annotations={"networking.istio.io/service-type": wanted}
    )
    assert made(msgspec.structs.replace(given, metadata=metadata))["Service"]["spec"]["type"] == found


def version(kind: str, generation: int = 2) -> Version:
    return Version(ObjectRef(kind, "default", "x"), "u", generation)


def condition(kind: str, status: str = "True", at: str = THEN, generation: int = 2) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": kind,
        "message": "",
        "observedGeneration": generation,
        "lastTransitionTime": at,
    }


@pytest.mark.parametrize(("kind", "asked"), [("LoadBalancer", "192.0.2.1"), ("ClusterIP", None)])
def test_a_load_balancer_is_asked_for_the_gateways_address(kind: str, asked: str | None) -> None:
    _, body = edge(addresses=[{"type": "IPAddress"}, {"type": "IPAddress", "value": "192.0.2.1"}])
    body["metadata"]["annotations"] = {"networking.istio.io/service-type": kind}
    service = made(msgspec.json.decode(json.dumps(body), type=Gateway))["Service"]["spec"]
    assert (service["type"], service.get("loadBalancerIP")) == (kind, asked)
    assert "externalIPs" not in service


def test_what_is_there_already_is_not_written_again() -> None:
    status = ObjectStatus(version("GatewayClass"), (ACCEPTED,))
    assert to_write({"status": {"conditions": [condition("Accepted")]}}, status, NOW) is None
    fields = to_write({}, status, NOW)
    assert fields == {"conditions": [condition("Accepted", at="2026-01-02T03:04:05Z")]}


def test_a_message_is_no_longer_than_the_api_takes() -> None:
    """Of a patch with long keys, say: else nothing of the status would be written."""
    said = msgspec.structs.replace(ACCEPTED, message="x" * 50_000)
    fields = to_write({}, ObjectStatus(version("GatewayClass"), (said,)), NOW)
    assert fields is not None and len(fields["conditions"][0]["message"]) == 32_768
    assert to_write({"status": fields}, ObjectStatus(version("GatewayClass"), (said,)), NOW) is None


def test_a_class_says_what_it_supports() -> None:
    status = ObjectStatus(version("GatewayClass"), (ACCEPTED,), ("Gateway", "HTTPRoute"))
    live: dict[str, Any] = {"conditions": [condition("Accepted")]}
    fields = to_write({"status": live}, status, NOW)
    assert fields == live | {"supportedFeatures": [{"name": "Gateway"}, {"name": "HTTPRoute"}]}
    assert to_write({"status": fields}, status, NOW) is None


def test_a_new_generation_keeps_the_time_and_others_conditions() -> None:
    live = {"status": {"conditions": [condition("Theirs"), condition("Accepted", generation=1)]}}
    fields = to_write(live, ObjectStatus(version("GatewayClass"), (ACCEPTED,)), NOW)
    assert fields == {"conditions": [condition("Theirs"), condition("Accepted")]}


def test_of_a_route_only_our_parents_are_written() -> None:
    others = {"parentRef": {"name": "edge"}, "controllerName": "example.com/other", "conditions": []}
    stale = {
        "parentRef": {"group": "", "kind": "Service", "name": "gone"},
        "controllerName": "ambit.io/waypoint-controller",
        "conditions": [],
    }
    kept = {
        "parentRef": {"group": "", "kind": "Service", "name": "web", "port": 80},
        "controllerName": "ambit.io/waypoint-controller",
        "conditions": [condition("Accepted"), condition("PartiallyInvalid")],
    }
    live = {"status": {"parents": [others, stale, kept]}}
    parents = (ParentStatus(Parent("", "Service", "web", port=80), (ACCEPTED,)),)
    fields = to_write(live, RouteStatus(version("HTTPRoute"), parents), NOW)
    assert fields == {"parents": [others, {**kept, "conditions": [condition("Accepted")]}]}
    assert to_withdraw(live, RouteStatus(version("HTTPRoute"), parents)) == {"parents": [others]}
    assert to_write({"status": {"parents": [others]}}, RouteStatus(version("HTTPRoute"), ()), NOW) is None


def test_a_gateway_has_listeners_and_addresses() -> None:
    listener = ListenerStatus("mesh", (ACCEPTED,))
    status = GatewayStatus(version("Gateway"), (ACCEPTED,), (listener,), ("10.96.0.7",))
    fields = to_write({"status": {"conditions": [condition("Accepted")]}}, status, NOW)
    assert fields is not None and fields["addresses"] == [{"type": "IPAddress", "value": "10.96.0.7"}]
    (written,) = fields["listeners"]
    assert (written["name"], written["attachedRoutes"], written["supportedKinds"]) == ("mesh", 0, [])
    assert to_write({"status": fields}, status, NOW) is None


def test_a_condition_that_is_not_said_any_more_is_taken_back() -> None:
    bound = ObjectStatus(version("Service"), (Condition("istio.io/WaypointBound", "True", "x"),))
    live = {"status": {"conditions": [condition("istio.io/WaypointBound"), condition("Theirs")]}}
    assert to_withdraw(live, bound) == {"conditions": [condition("Theirs")]}
    assert to_withdraw({}, bound) is None


def test_what_nodes_say_of_a_policy_stays_beside_what_is_said_of_gateways() -> None:
    of_nodes = [condition(each) for each in ("ZtunnelAccepted", "ambit.io/Acknowledged")]
    live = {"status": {"conditions": [*of_nodes, condition("WaypointAccepted")]}}
    said = (Condition("WaypointAccepted", "True", "x"),)
    for_both = ObjectStatus(version("AuthorizationPolicy"), said, by_nodes=True)
    written = to_write(live, for_both, NOW)
    assert written is not None and written["conditions"][:2] == of_nodes
    assert to_withdraw(live, for_both) == {"conditions": of_nodes}
    only = to_write(live, ObjectStatus(version("AuthorizationPolicy"), said), NOW)
    assert only is not None and [each["type"] for each in only["conditions"]] == ["WaypointAccepted"]


def test_a_condition_that_a_gateway_has_no_more_goes_alone() -> None:
    live = {"status": {"conditions": [condition(each) for each in ("Accepted", INSECURE, "other.io/Seen")]}}
    written = to_write(live, GatewayStatus(version("Gateway"), (ACCEPTED,), ()), NOW)
    assert written is not None
    assert {each["type"] for each in written["conditions"]} == {"Accepted", "other.io/Seen"}


def test_of_an_entry_the_condition_that_is_not_said_any_more_goes_alone() -> None:
    bound, visible, theirs = (condition(each) for each in (WAYPOINT_BOUND, VISIBILITY_APPLIED, "Theirs"))
    live = {"status": {"conditions": [bound, visible, theirs]}}
    still = Condition(VISIBILITY_APPLIED, "True", VISIBILITY_APPLIED)
    status = ObjectStatus(version("ServiceEntry"), (still,))
    assert to_write(live, status, NOW) == {"conditions": [visible, theirs]}
    assert to_write(live, ObjectStatus(version("ServiceEntry"), ()), NOW) == {"conditions": [theirs]}


def at_the_edge(*ports: int, **given: Any) -> Gateway:
    listeners = [{"name": f"l{each}", "port": each, "protocol": "HTTP"} for each in ports or (80,)]
    _, body = edge(*listeners, **given)
    return msgspec.json.decode(json.dumps(body), type=Gateway)


def test_objects_of_a_gateway_at_the_edge_have_its_name_and_its_classes() -> None:
    objects = made(at_the_edge(of_class="istio"))
    for value in objects.values():
        assert value["metadata"]["name"] == "edge-istio"
        assert value["metadata"]["labels"] == {
            "gateway.networking.k8s.io/gateway-name": "edge",
            "gateway.networking.k8s.io/gateway-class-name": "istio",
            "gateway.istio.io/managed": "istio.io-gateway-controller",
        }
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "edge-istio"
    assert spec["securityContext"]["sysctls"] == [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
    ]


def test_the_service_of_a_gateway_has_the_ports_of_its_listeners() -> None:
    service = made(at_the_edge(80, 8080, 80))["Service"]
    assert service["spec"]["type"] == "LoadBalancer"
    ports = [(each["name"], each["port"], each["protocol"]) for each in service["spec"]["ports"]]
    assert ports == [("status-port", 15021, "TCP"), ("http-80", 80, "TCP"), ("http-8080", 8080, "TCP")]


def test_datagrams_and_http3_are_ports_of_udp() -> None:
    given = at_the_edge()
    listeners = (
        Listener("dns", 53, Protocol.UDP),
        Listener("dns-tcp", 53, Protocol.TCP),
        Listener("https", 443, Protocol.HTTPS, terms=TlsTerms(http3=True)),
    )
    proxy = msgspec.structs.replace(proxy_of(given), listeners=listeners)
    _, (_, service), *_ = gateway_objects(given, proxy, PODS)
    assert [(each["name"], each["port"], each["protocol"]) for each in service["spec"]["ports"][1:]] == [
        ("tcp-53", 53, "TCP"),
        ("udp-53", 53, "UDP"),
        ("https-443", 443, "TCP"),
        ("http3-443", 443, "UDP"),
    ]


def test_a_name_that_no_label_can_have_is_cut() -> None:
    objects = made(at_the_edge(name="a" * 253))
    for value in objects.values():
        assert len(value["metadata"]["name"]) <= 63
        assert all(len(each) <= 63 for each in value["metadata"]["labels"].values())


def test_a_pod_of_a_gateway_gives_its_clients_time_to_go() -> None:
    (container,) = made(at_the_edge())["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["--least-drain", "6s"]
    grace = made(at_the_edge())["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > 20
