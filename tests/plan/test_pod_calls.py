"""Whom a node calls in the name of a pod, and how."""

from typing import Any

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.backend_tls import BackendTls
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.model.workload import GatewayAddress, Workload
from ambit.plan.backends import Provider
from ambit.plan.node import pod_calls
from ambit.plan.values import CLUSTER, LISTENER, LocalPods
from tests.plan import cases
from tests.plan.as_text import content_of
from tests.plan.read_pod import AUTHZ, SERVER

FAR = cases.workload("authz", "10.244.2.9", node="node2", services={AUTHZ.key: AUTHZ.ports})
_POD = cases.pod(SERVER)
_PROVIDER = Provider(AUTHZ.key, 8000)
_NAME = names.called_by(_POD.key, _PROVIDER.cluster)


def _made(*services: Service, workload: Workload = FAR, provider: Provider = _PROVIDER) -> dict[Any, Any]:
    view = Snapshot([SERVER, workload], services)
    called = {names.called_by(_POD.key, provider.cluster): provider}
    made = pod_calls.resources(_POD, called, view, LocalPods([_POD]), cases.SETTINGS)
    return {(each.type_url, each.name): content_of(each) for each in made}


def _ways(*services: Service, **given: Any) -> list[str]:
    """The clusters that endpoints are reached by."""
    provider = given.get("provider", _PROVIDER)
    way = _made(*services, **given)[CLUSTER, names.way_of(names.called_by(_POD.key, provider.cluster))]
    (locality,) = way["load_assignment"]["endpoints"]
    return [
        each["metadata"]["filter_metadata"]["ambit"]["cluster"] for each in locality.get("lb_endpoints", ())
    ]


def test_a_call_goes_by_a_listener_that_knows_the_pod() -> None:
    made = _made(AUTHZ)
    assert set(made) == {(CLUSTER, _NAME), (LISTENER, _NAME), (CLUSTER, names.way_of(_NAME))}
    assert _ways(AUTHZ) == [names.tunnel(FAR.identity)]


def test_without_a_service_every_call_fails() -> None:
    untrusted = msgspec.structs.replace(AUTHZ, backend_tls={8000: BackendTls("authz")})
    for services in ((), (untrusted,)):
        [made] = _made(*services).values()
        assert "load_assignment" not in made
    assert _ways(AUTHZ, provider=Provider(AUTHZ.key, 7)) == []


def test_grpc_is_spoken_by_http_2() -> None:
    by_grpc = msgspec.structs.replace(_PROVIDER, is_grpc=True)
    made = _made(AUTHZ, provider=by_grpc)[CLUSTER, names.called_by(_POD.key, by_grpc.cluster)]
    assert "explicit_http_config" in str(made) and "http2_protocol_options" in str(made)


_STRANGER = Service(
    name="authz",
    namespace="other",
    hostname="authz.other.svc.cluster.local",
    addresses=AUTHZ.addresses,
    ports=AUTHZ.ports,
)


@pytest.mark.parametrize("namespace", ["other", "victims"])
def test_another_namespaces_provider_is_its_own_pods_only(namespace: str) -> None:
    """What its EndpointSlice names beside would be called with the pod's identity; as would be whoever proves a name
    that its ServiceEntry names."""
    identity = Identity("cluster.local", namespace, "authz")
    named = msgspec.structs.replace(
        _STRANGER, subject_alt_names=("spiffe://cluster.local/ns/victims/sa/victim",)
    )
    there = msgspec.structs.replace(
        FAR, namespace=namespace, identity=identity, services={named.key: named.ports}
    )
    ways = [names.tunnel(identity)] if namespace == "other" else []
    for service in (_STRANGER, named):
        assert _ways(service, workload=there, provider=Provider(named.key, 8000)) == ways


def test_his_own_waypoint_is_on_the_way() -> None:
    """As for any call of the pod; without one that is ready there is no way."""
    place = GatewayAddress(15008, namespace="default", hostname="way.default.svc.cluster.local")
    assert _ways(msgspec.structs.replace(AUTHZ, waypoint=place)) == []
