"""Services: protocols, addresses, and which endpoints are preferred."""

from typing import Any

import pytest

from ambit.ingest.kube.service import service, service_target
from ambit.ingest.settings import MeshSettings
from ambit.model.service import AppProtocol, BalancingMode, IpFamilies, Scope, Service
from ambit.objects.kube import Namespace
from ambit.objects.meta import ObjectMeta
from tests.ingest import build
from tests.ingest.test_mesh import change


def made(
    namespace: Namespace | None = None, annotations: dict[str, str] | None = None, **spec: Any
) -> Service:
    resource, body = build.service("web", {"app": "web"}, **spec)
    body["metadata"]["annotations"] = annotations or {}
    result = service(
        change((resource, body)).value, namespace, None, MeshSettings(cluster_domain="mesh.test")
    )
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"name": "http"}, AppProtocol.HTTP11),
        ({"name": "http-web"}, AppProtocol.HTTP11),
        ({"name": "HTTP2-x"}, AppProtocol.HTTP2),
        ({"name": "grpc-web-x"}, AppProtocol.GRPC),
        ({"name": "https"}, AppProtocol.TLS),
        ({"name": "redis"}, AppProtocol.TCP),
        ({"name": "web-http"}, None),
        ({"name": ""}, None),
        ({"name": "http", "appProtocol": "tcp"}, AppProtocol.TCP),
        ({"name": "http", "appProtocol": "kubernetes.io/h2c"}, AppProtocol.HTTP2),
        ({"name": "http", "appProtocol": "example.com/own"}, None),
    ],
)
def test_protocols(port: dict[str, Any], expected: AppProtocol | None) -> None:
    assert made(ports=[{"port": 80, **port}]).app_protocols.get(80) is expected


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        ([], IpFamilies.AUTOMATIC),
        (["IPv4"], IpFamilies.IPV4_ONLY),
        (["IPv6"], IpFamilies.IPV6_ONLY),
        (["IPv6", "IPv4"], IpFamilies.DUAL),
    ],
)
def test_families(families: list[str], expected: IpFamilies) -> None:
    assert made(ipFamilies=families).ip_families is expected


def test_hostname_follows_the_cluster_domain() -> None:
    assert made().key == "default/web.default.svc.mesh.test"


def test_preference_by_annotation_field_and_namespace() -> None:
    key = "networking.istio.io/traffic-distribution"
    near = Namespace(ObjectMeta("default", annotations={key: "PreferSameNode"}))
    from_namespace = made(near).load_balancing
    assert from_namespace and from_namespace.routing_preference[-1] is Scope.NODE
    own = made(near, trafficDistribution="PreferSameZone").load_balancing
    assert own and own.routing_preference == (Scope.NETWORK, Scope.REGION, Scope.ZONE)
    annotated = made(near, {key: "prefersameregion"}).load_balancing
    assert annotated and annotated.routing_preference == (Scope.NETWORK, Scope.REGION)
    field_first = made(near, {key: "PreferSameRegion"}, trafficDistribution="PreferClose").load_balancing
    assert field_first and field_first.routing_preference == (Scope.NETWORK, Scope.REGION, Scope.ZONE)
    passed_over = made(near, {key: "PreferNobody"}).load_balancing
    assert passed_over == from_namespace
    strict = made(near, internalTrafficPolicy="Local").load_balancing
    assert strict and strict.mode is BalancingMode.STRICT
    assert made(trafficDistribution="Unknown").load_balancing is None


def test_target_ports_may_be_text() -> None:
    target = service_target(change(build.service("web", {"a": "b"}, target="8443")).value, MeshSettings())
    assert target is not None and not target.named and target.ports[0].target == 8443
    assert made(ports=[{"port": 80}, {"port": 53, "protocol": "UDP"}]).ports[0].target == 80
