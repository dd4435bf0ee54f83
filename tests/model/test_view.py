"""The in-memory view: who has an address, which policies apply, what is unknown."""

import ipaddress
import itertools
from pathlib import Path

from ambit.model.policy import Action, Authorization, Scope
from ambit.model.service import Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import NetworkMode, TunnelProtocol
from ambit.node.state.mesh import MeshState
from ambit.xds.messages import ADDRESS_TYPE, to_resource
from tests.plan.cases import workload

ADDRESS = ipaddress.ip_address("10.96.0.9")


def service(
    namespace: str, *, prefix: int | None = None, canonical: bool = False, network: str = ""
) -> Service:
    virtual = VirtualAddress(network, ADDRESS, prefix)
    return Service(
        name="s", namespace=namespace, hostname="s.example", addresses=(virtual,), canonical=canonical
    )


def found(*services: Service, client: str = "", address: str = "10.96.0.9", network: str = "") -> str | None:
    view = Snapshot(services=services)
    best = view.service_by_address(network, ipaddress.ip_address(address), client_namespace=client)
    return best.namespace if best else None


def policy(name: str, namespace: str, scope: Scope) -> Authorization:
    return Authorization(name, namespace, scope, Action.ALLOW)


def test_exact_before_cidr_then_own_namespace_then_canonical_then_first() -> None:
    assert found(service("a", prefix=24), service("b")) == "b"
    assert found(service("a", prefix=16), service("b", prefix=24)) == "b"
    assert found(service("a"), service("b"), client="b") == "b"
    assert found(service("a"), service("b", canonical=True)) == "b"
    assert found(service("b"), service("a")) == "a"


def test_a_kubernetes_service_before_every_entry() -> None:
    name = "s.zzz.svc.cluster.local"
    virtual = (VirtualAddress("", ADDRESS),)
    given = Service(name="s", namespace="zzz", hostname=name, addresses=virtual, canonical=True)
    for client in ("", "a", "zzz"):
        assert found(service("a", canonical=True), given, client=client) == "zzz"
        assert found(service("a"), given, client=client) == "zzz"


def test_of_workloads_with_one_address_pods_go_first(tmp_path: Path) -> None:
    """In both views, whatever came last."""
    plain = workload("plain", "10.0.0.1", tunnel=TunnelProtocol.NONE)
    other = workload("other", "10.0.0.1")
    entry = workload("a", "10.0.0.1", uid="Kubernetes/networking.istio.io/WorkloadEntry/aaa/a")
    address = ipaddress.ip_address("10.0.0.1")
    for given, best in (([plain, entry], plain), ([other, plain, entry], other), ([entry], entry)):
        for turn, several in enumerate(itertools.permutations(given)):
            held = Snapshot(several).workload_by_address("", address)
            assert held == best
            state = MeshState(tmp_path / f"{len(given)}-{turn}")
            for each in several:
                state.apply(ADDRESS_TYPE, [to_resource(each)], [])
            stored = state.workload_by_address("", address)
            assert stored is not None and stored.uid == best.uid
            state.close()


def test_cidr_network_and_family_must_match() -> None:
    assert found(service("a", prefix=24), address="10.96.0.200") == "a"
    assert found(service("a", prefix=24), address="10.96.1.9") is None
    assert found(service("a"), network="other") is None
    assert found(service("a", prefix=0), address="::1") is None


def test_host_network_workloads_are_not_found_by_address() -> None:
    pod = workload("pod", "10.0.0.1")
    host = workload("host", "10.0.0.2", network_mode=NetworkMode.HOST_NETWORK)
    view = Snapshot([pod, host])
    assert view.workload_by_address("", ipaddress.ip_address("10.0.0.1")) == pod
    assert view.workload_by_address("", ipaddress.ip_address("10.0.0.2")) is None
    assert view.workload(host.uid) == host


def test_policies_of_a_workload() -> None:
    everywhere = policy("g", "istio-system", Scope.GLOBAL)
    own = policy("n", "default", Scope.NAMESPACE)
    named = policy("w", "default", Scope.WORKLOAD_SELECTOR)
    others = (policy("n", "other", Scope.NAMESPACE), policy("x", "default", Scope.WORKLOAD_SELECTOR))
    pod = workload("pod", "10.0.0.1", policies=("default/w", "default/missing"))
    policies, unknown = Snapshot([pod], [], [everywhere, own, named, *others]).policies_for(pod)
    assert policies == (own, named, everywhere)
    assert unknown == ("default/missing",)
