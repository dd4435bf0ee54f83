"""Tunnels of our nodes to another implementation's server, as a ztunnel's would be."""

import contextlib
import re
from collections.abc import Iterator

import msgspec
import pytest

from ambit.core.address import host_port
from ambit.core.identity import Identity
from ambit.model.workload import Locality, Port, TunnelProtocol, Workload, WorkloadType
from tests.plan.dataplane.conftest import Mesh, Pod, service
from tests.plan.dataplane.network import REFUSED, Host, read_all
from tests.plan.dataplane.served import until
from tests.wire.hbone import Server, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
THEIRS = Identity("cluster.local", "default", "theirs")
VIRTUAL = "10.96.7.7"
TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-00")


@pytest.fixture
def theirs(mesh: Mesh, outside: Host) -> Iterator[Server]:
    """A server beyond a tunnel that is none of ours, and what our nodes know of its workload."""
    workload = Workload(
        uid="Kubernetes//Pod/default/theirs",
        name="theirs",
        namespace="default",
        identity=THEIRS,
        addresses=outside.addresses,
        tunnel=TunnelProtocol.HBONE,
        node="theirs",
        services={"default/web.default.svc.cluster.local": (Port(80, 8080),)},
    )
    mesh.others = [workload]
    mesh.services = [service(VIRTUAL)]
    pod = mesh.pods["a"]
    pod.workload = msgspec.structs.replace(
        pod.workload,
        workload_type=WorkloadType.DEPLOYMENT,
        workload_name="a",
        canonical_name="web shop",
        canonical_revision="v1",
        cluster_id="Kubernetes",
        locality=Locality("north", "north-1"),
    )
    mesh.update()
    with Server(outside, context(mesh.authority, THEIRS.uri, server=True), greeting=b"hello") as server:
        yield server
    pod.workload = Pod(pod, pod.agent, "a", "client").workload


BAGGAGE = (
    "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=a,"
    "service.name=web%20shop,service.version=v1,cloud.region=north,cloud.availability_zone=north-1"
)


@pytest.mark.parametrize("family", [4, 6])
def test_a_request_is_what_ztunnel_would_send(
    mesh: Mesh, outside: Host, theirs: Server, way: str, family: int
) -> None:
    """CONNECT for the pod's address, mutual TLS 1.3 without a server's name, and three headers."""
    (address,) = (each for each in outside.addresses if each.version == family)
    with mesh.pods["a"].connect(address, 8080) as client:
        assert client.recv(5) == b"hello"
        port = client.getsockname()[1]
    (request,) = theirs.requests
    names = [name for name, _ in request.headers]
    assert sorted(names) == [":authority", ":method", "baggage", "forwarded", "traceparent"]
    assert request.header(":method") == "CONNECT"
    assert request.header(":authority") == host_port(address, 8080)
    assert request.header("baggage") == BAGGAGE
    (source,) = (each for each in mesh.pods["a"].addresses if each.version == family)
    assert request.header("forwarded") == f'for="{host_port(source, port)}"'
    assert TRACE.fullmatch(request.header("traceparent"))
    assert request.identity == mesh.pods["a"].identity.uri
    assert (request.server_name, request.protocol) == (None, "h2")
    assert request.cipher in {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"}
    assert request.peer.startswith(str(source))


def test_a_service_is_named_and_its_endpoint_asked_for(
    mesh: Mesh, outside: Host, theirs: Server, way: str
) -> None:
    """`host` of `forwarded` is the service; `:authority` is never its virtual address."""
    with mesh.pods["a"].connect(VIRTUAL, 80) as client:
        assert client.recv(5) == b"hello"
    (request,) = theirs.requests
    assert request.header(":authority") == f"{outside.four}:8080"
    assert request.header("forwarded").endswith('";host=web.default.svc.cluster.local')


def test_every_connection_has_a_trace_of_its_own(mesh: Mesh, outside: Host, theirs: Server, way: str) -> None:
    """Also those of different pods."""
    with contextlib.ExitStack() as stack:
        for name in ("a", "a", "b", "a", "b"):
            client = stack.enter_context(mesh.pods[name].connect(outside.four, 8080))
            assert client.recv(5) == b"hello"
    traces = [TRACE.fullmatch(request.header("traceparent")) for request in theirs.requests]
    assert all(traces)
    assert len({found[1] for found in traces if found}) == 5


def test_each_side_may_end_first(mesh: Mesh, outside: Host, theirs: Server, way: str) -> None:
    """A client's end is END_STREAM, after which the server goes on; all bytes arrive in both directions."""
    said = b"x" * 300_000
    with mesh.pods["a"].connect(outside.four, 8080) as client:
        client.sendall(said)
        client.shutdown(1)
        assert read_all(client) == b"hello 300000"
    (request,) = theirs.requests
    assert request.heard == said


@pytest.mark.parametrize("status", ["400", "401", "503"])
def test_a_refusal_ends_the_clients_connection(
    mesh: Mesh, outside: Host, theirs: Server, way: str, status: str
) -> None:
    theirs.status = status
    assert mesh.pods["a"].ask(outside.four, 8080) == REFUSED
    assert theirs.requests


@pytest.mark.feature("F147")
def test_connections_of_one_pod_share_a_tunnel(mesh: Mesh, outside: Host, theirs: Server) -> None:
    """A hundred at once, which is what a tunnel may carry; the very first may have made one of its own."""
    greet(mesh.pods["a"], outside)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(mesh.pods["a"].connect(outside.four, 8080))
            assert client.recv(5) == b"hello"
    shared = theirs.connections
    assert shared <= 2
    greet(mesh.pods["twin"], outside)
    assert theirs.connections > shared, "another pod of the same identity has tunnels of its own"


def test_a_goodbye_costs_no_connection(mesh: Mesh, outside: Host, theirs: Server) -> None:
    """After GOAWAY new connections get a new tunnel, and none is lost meanwhile."""
    greet(mesh.pods["a"], outside)
    before = theirs.connections
    theirs.leave()

    def greeted_elsewhere() -> bool:
        greet(mesh.pods["a"], outside)
        return theirs.connections > before

    until(greeted_elsewhere, "another tunnel")


def greet(pod: Pod, server: Host) -> None:
    with pod.connect(server.four, 8080) as client:
        assert client.recv(5) == b"hello"


def test_another_identity_than_the_workloads_is_refused(
    mesh: Mesh, outside: Host, way: str, theirs: Server
) -> None:
    """The certificate is of the right authority; the account is not that of the workload."""
    mesh.others = [
        msgspec.structs.replace(mesh.others[0], identity=Identity("cluster.local", "default", "somebody"))
    ]
    mesh.update()
    assert mesh.pods["a"].ask(outside.four, 8080) == REFUSED
    assert theirs.requests == []
