"""Services that are not pods: ServiceEntries of every resolution, by their own addresses, and what selects them."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.test_dns import allocated, resolve

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Says the server's name and the client's address. The second port is another server's.
SERVER = """
import os, socket, threading
def serve(port):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
    while True:
        connection, client = server.accept()
        with connection:
            connection.sendall(f"{os.environ['HOSTNAME']}:{port} {client[0].removeprefix('::ffff:')}".encode())
for port in (8080, 8081):
    threading.Thread(target=serve, args=[port]).start()
"""
ASK = """
import json, socket, sys
answers = []
for place in sys.argv[2:]:
    host, _, port = place.rpartition(":")
    for _ in range(int(sys.argv[1])):
        try:
            with socket.create_connection((host, int(port)), 5) as connection:
                connection.settimeout(5)
                answers.append([place, connection.recv(100).decode()])
        except OSError as problem:
            answers.append([place, type(problem).__name__])
print(json.dumps(answers))
"""


class Town(NamedTuple):
    """An enrolled namespace with `client` on the first node, and one outside with `near` and `far`."""

    inside: str
    outside: str
    client: str
    near: str
    far: str


@pytest.fixture(scope="module")
def town(mesh: Mesh) -> Iterator[Town]:
    with make_namespace(mesh) as inside, make_namespace(mesh, enrolled=False) as outside:
        probe = {"tcpSocket": {"port": 8081}, "periodSeconds": 1}
        command = ["python3", "-uc", SERVER]
        servers = [
            pod(name, node, command, labels={"app": name}, readinessProbe=probe)
            for name, node in zip(("near", "far"), mesh.nodes, strict=False)
        ]
        service = {"selector": {"app": "far"}, "ports": [{"port": 9090, "targetPort": 8080}]}
        named = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far"}, "spec": service}
        servers[1]["spec"] |= {"hostname": "far", "subdomain": "peers"}
        peers = {**named, "metadata": {"name": "peers"}, "spec": {**service, "clusterIP": "None"}}
        apply_in(mesh, outside, [named, peers, *servers])
        apply_in(mesh, inside, [pod("client", mesh.nodes[0], ["sleep", "3600"])])
        client, near, far = (
            mesh.pod_addresses(space, name)[0]
            for space, name in ((inside, "client"), (outside, "near"), (outside, "far"))
        )
        yield Town(inside, outside, client, near, far)


def entry(name: str, host: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name},
        "spec": {"hosts": [host], "ports": [{"number": 7000, "name": "tcp"}], **spec},
    }


def apply(mesh: Mesh, town: Town, *objects: dict[str, Any]) -> None:
    mesh.kubectl("apply", "-n", town.inside, "-f", "-", stdin=yaml.safe_dump_all(objects))


def ask(mesh: Mesh, town: Town, *places: str, times: int = 1) -> list[tuple[str, str]]:
    """What each place answers to the client: the server's name and port, or the error's; in order."""
    output = mesh.exec(town.inside, "client", "python3", "-c", ASK, str(times), *places).stdout
    found = []
    for place, text in json.loads(output):
        server, _, client = text.partition(" ")
        assert client in ("", town.client), f"{place} saw {client}"
        found.append((place, server))
    return found


def until_answered(mesh: Mesh, town: Town, place: str, *servers: str) -> None:
    """Until the place is these servers, all of them, and nothing else."""
    wanted = {(place, server) for server in servers}
    mesh.wait(f"{place} is {servers}", lambda: set(ask(mesh, town, place, times=8)) == wanted)


@pytest.mark.feature("N21")
def test_the_narrowest_range_of_addresses_counts(mesh: Mesh, town: Town) -> None:
    """An exact address before ranges, narrow ranges before wide ones, and all of them before what is not told."""
    port, other = 8080, 8081
    endpoints = {
        "wide": ("198.51.100.0/24", {"address": town.near, "ports": {"tcp": port}}),
        "narrow": ("198.51.100.64/26", {"address": town.far, "ports": {"tcp": port}}),
        "exact": ("198.51.100.70", {"address": town.far, "ports": {"tcp": other}}),
    }
    apply(
        mesh,
        town,
        *(
            entry(name, f"{name}.range.test", addresses=[address], resolution="STATIC", endpoints=[endpoint])
            for name, (address, endpoint) in endpoints.items()
        ),
    )
    expected = {
        "198.51.100.1:7000": "near:8080",
        "198.51.100.65:7000": "far:8080",
        "198.51.100.70:7000": "far:8081",
    }
    for place, server in expected.items():
        until_answered(mesh, town, place, server)
    dumped = json.dumps(mesh.dump("services"))
    assert "wide.range.test" in dumped and "198.51.100.0/24" in dumped
    mesh.kubectl("delete", "serviceentry", "-n", town.inside, "narrow", "exact")
    for place in expected:
        until_answered(mesh, town, place, "near:8080")


def test_endpoints_that_are_names_are_resolved(mesh: Mesh, town: Town) -> None:
    name = f"far.{town.outside}.svc.cluster.local"
    endpoints = [{"address": name, "ports": {"tcp": 9090}}, {"address": town.near, "ports": {"tcp": 8080}}]
    apply(
        mesh,
        town,
        entry("named", "named.test", addresses=["198.51.100.130"], resolution="DNS", endpoints=endpoints),
        entry(
            "nobody",
            "nobody.invalid",
            addresses=["198.51.100.132"],
            resolution="DNS",
        ),
    )
    itself = entry(
        "itself",
        f"far.peers.{town.outside}.svc.cluster.local",
        addresses=["198.51.100.131"],
        resolution="DNS",
        ports=[{"number": 8080, "name": "tcp"}],
    )
    apply_in(mesh, town.outside, [itself])
    until_answered(mesh, town, "198.51.100.130:7000", "far:8080", "near:8080")
    until_answered(mesh, town, "198.51.100.131:8080", "far:8080")
    until_answered(mesh, town, "198.51.100.132:7000", "")
    mesh.kubectl("delete", "serviceentry", "-n", town.outside, "itself")  # others say where the host is, too


@pytest.mark.feature("F47")
def test_a_host_without_an_address_gets_one_that_leads_to_it(mesh: Mesh, town: Town) -> None:
    """To the host's own address, or to what its endpoints' names resolve to."""
    itself, other = f"far.peers.{town.outside}.svc.cluster.local", f"db.{town.inside}.example"
    behind = [{"address": f"far.{town.outside}.svc.cluster.local", "ports": {"tcp": 9090}}]
    ports = [{"number": 8080, "name": "tcp"}]
    apply_in(mesh, town.outside, [entry("own", itself, resolution="DNS", ports=ports)])
    apply(mesh, town, entry("given", other, resolution="DNS", endpoints=behind))
    for namespace, name, host, port in (
        (town.outside, "own", itself, 8080),
        (town.inside, "given", other, 7000),
    ):
        found = mesh.wait(f"{host} has addresses", lambda n=namespace, e=name: allocated(mesh, n, e))
        addresses = found[host]
        assert addresses
        mesh.wait(
            f"{host} is known by them",
            lambda host=host, addresses=addresses: resolve(mesh, town.inside, host)[host] == addresses,
        )
        until_answered(mesh, town, f"{host}:{port}", "far:8080")
        mesh.kubectl("delete", "serviceentry", "-n", namespace, name)


def test_without_resolution_connections_go_where_they_went(mesh: Mesh, town: Town) -> None:
    before = ask(mesh, town, f"{town.far}:8080", f"{town.far}:8081")
    assert before == [(f"{town.far}:8080", "far:8080"), (f"{town.far}:8081", "far:8081")]
    apply(
        mesh,
        town,
        entry("as-is", "as-is.test", addresses=[f"{town.far}/31"], ports=[{"number": 8080, "name": "tcp"}]),
    )
    mesh.wait("the entry is there", lambda: "as-is.test" in json.dumps(mesh.dump("services")))
    assert ask(mesh, town, f"{town.far}:8080", f"{town.far}:8081") == before


@pytest.mark.feature("N21")
def test_what_is_somebody_elses_stays_theirs(mesh: Mesh, town: Town) -> None:
    """Neither a Service's address and name, nor a pod's address, nor one that the mesh gave to a host leads to an entry
    of another namespace."""
    ports = [{"number": 8080, "name": "tcp"}]
    given = entry("given", "given.test", resolution="STATIC", ports=ports, endpoints=[{"address": town.far}])
    mesh.kubectl("apply", "-n", town.outside, "-f", "-", stdin=yaml.safe_dump(given))
    path = "jsonpath={.status.addresses[*].value}"
    words = ("get", "serviceentry", "-n", town.outside, "given", "-o", path)
    own = next(
        each
        for each in mesh.wait("the host has addresses", lambda: mesh.kubectl(*words).stdout.split())
        if ":" not in each
    )
    address = mesh.kubectl(
        "get", "service", "-n", town.outside, "far", "-o", "jsonpath={.spec.clusterIP}"
    ).stdout
    name = f"far.{town.outside}"
    places = [
        f"{own}:8080",
        f"{town.far}:8080",
        f"{address}:9090",
        f"{name}:9090",
        f"{name}.svc.cluster.local:9090",
    ]
    expected = [(place, "far:8080") for place in places]
    mesh.wait("the service is there", lambda: ask(mesh, town, *places) == expected)
    thief = entry(
        "thief",
        f"{name}.svc.cluster.local",
        addresses=["198.51.100.160", town.far, address, own],
        resolution="STATIC",
        ports=[{"number": port, "name": f"tcp-{port}", "targetPort": 8081} for port in (8080, 9090)],
        endpoints=[{"address": town.near}],
    )
    thief["spec"]["hosts"] += [name, "thief.test"]
    apply(mesh, town, thief)
    until_answered(mesh, town, "198.51.100.160:8080", "near:8081")
    assert ask(mesh, town, *places) == expected
    said = mesh.ambit("check", "-o", "json", check=False).stdout
    mesh.kubectl("delete", "serviceentry", "-n", town.inside, "thief")
    mesh.kubectl("delete", "serviceentry", "-n", town.outside, "given")
    assert f"{town.inside}/thief" in said and "AMB0306" in said
    assert f"Service {town.outside}/far" in said and f"Pod {town.outside}/far" in said
    assert f"ServiceEntry {town.outside}/given" in said


def test_a_selector_takes_pods_and_workload_entries(mesh: Mesh, town: Town) -> None:
    probe = {"tcpSocket": {"port": 8081}, "periodSeconds": 1}
    server = pod(
        "member", mesh.nodes[1], ["python3", "-uc", SERVER], labels={"team": "x"}, readinessProbe=probe
    )
    outside = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": "machine"},
        "spec": {"address": town.near, "labels": {"team": "x"}, "ports": {"tcp": 8081}},
    }
    selecting = entry(
        "team",
        "team.test",
        addresses=["198.51.100.140"],
        location="MESH_INTERNAL",
        resolution="STATIC",
        workloadSelector={"labels": {"team": "x"}},
        ports=[{"number": 7000, "name": "tcp", "targetPort": 8080}],
    )
    apply(mesh, town, server, outside, selecting)
    until_answered(mesh, town, "198.51.100.140:7000", "member:8080", "near:8081")
    mesh.kubectl("delete", "workloadentry", "-n", town.inside, "machine")
    until_answered(mesh, town, "198.51.100.140:7000", "member:8080")


def test_an_endpoint_of_the_other_family_is_reached(mesh: Mesh, town: Town) -> None:
    six = mesh.pod_addresses(town.outside, "far")[1:]
    if not six:
        pytest.skip("the cluster has one address family")
    where = {"resolution": "STATIC", "endpoints": [{"address": six[0], "ports": {"tcp": 8080}}]}
    apply(mesh, town, entry("six", "six.test", addresses=["198.51.100.150"], **where))
    found = lambda: mesh.exec(town.inside, "client", "python3", "-c", ASK, "1", "198.51.100.150:7000").stdout  # noqa: E731
    mesh.wait("far is reached over IPv6", lambda: "far:8080 " in found())
