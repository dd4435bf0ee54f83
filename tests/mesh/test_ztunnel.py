"""A stock ztunnel on one node of the mesh: what it takes from our control plane, and tunnels to and from our nodes.

$AMBIT_BENCH_ZTUNNEL names the program (docs/performance.md says how to build it); without it there is nothing to test.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bench.ztunnel.nodes import NAME, VARIABLE, give_nodes, program

from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.sniffer import sniffing

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("nodes change their proxy for it"),
    pytest.mark.skipif(not os.environ.get(VARIABLE), reason="no AMBIT_BENCH_ZTUNNEL names a ztunnel"),
]

OURS, THEIRS = "node2", "node3"
"""Nodes of the servers and of ztunnel's client; our client is on node1."""
SYSTEM = "ambit-system"
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
NODES = {"ours": OURS, "theirs": THEIRS, "our-client": "node1", "their-client": THEIRS}
PATHS = [("our-client", "theirs"), ("their-client", "ours"), ("their-client", "theirs")]


class Town(NamedTuple):
    """Servers `ours` and `theirs` with a Service each, clients `our-client` and `their-client`; each its account."""

    mesh: LaptopMesh
    namespace: str

    def call(self, client: str, server: str, path: str = "/", *options: str) -> str:
        """What the server answered, or an empty text."""
        url = f"http://{server}{path}"
        return self.mesh.exec(
            self.namespace, client, "curl", "-s", "-m", "10", *options, url, check=False
        ).stdout

    def identity(self, name: str) -> str:
        return f"spiffe://cluster.local/ns/{self.namespace}/sa/{name}"

    def ztunnel_lines(self, *texts: str) -> list[str]:
        """Lines of ztunnel's access log that have all of these texts."""
        words = ("logs", "-n", SYSTEM, "-l", f"app={NAME}", "-c", "ztunnel", "--tail=-1")
        lines = self.mesh.kubectl(*words).stdout.splitlines()
        return [line for line in lines if "access" in line and all(text in line for text in texts)]

    def flows(self, server: str, **fields: object) -> list[dict[str, Any]]:
        """Connections to a server as our nodes report them, through a tunnel, with these fields."""
        lines = self.mesh.ambit(
            "flows", "--to", f"{self.namespace}/{server}", "-o", "json"
        ).stdout.splitlines()
        found = [flow for flow in map(json.loads, lines) if flow.get("hop") == "tunnel"]
        return [flow for flow in found if fields.items() <= flow.items()]


@pytest.fixture(scope="module")
def town(kubectl_program: str | None) -> Iterator[Town]:
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        mesh = start_mesh(Path(root), kubectl_program, "--nodes", "3")
        try:
            ztunnel = program()
            assert ztunnel is not None
            mesh.call(lambda client: give_nodes(client, ztunnel, [THEIRS]))
            with make_namespace(mesh) as namespace:
                mesh.apply([each for name in NODES for each in _objects(namespace, name)])
                mesh.kubectl(
                    "wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=110s"
                )
                yield Town(mesh, namespace)
        finally:
            mesh.ambit("down")


def _objects(namespace: str, name: str) -> list[dict[str, Any]]:
    metadata = {"name": name, "namespace": namespace}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    serves = not name.endswith("client")
    command = ["python3", "-c", SERVER] if serves else ["sleep", "infinity"]
    probe = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}} if serves else {}
    value = pod(name, NODES[name], command, namespace=namespace, labels={"app": name}, **probe)
    value["spec"]["serviceAccountName"] = name
    if not serves:
        return [account, value]
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return [account, value, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}]


@pytest.mark.parametrize(("client", "server"), PATHS)
def test_a_service_is_reached_with_the_callers_address(town: Town, client: str, server: str) -> None:
    (address, *_) = town.mesh.pod_addresses(town.namespace, client)
    answer = town.mesh.wait(f"{server} answers {client}", lambda: town.call(client, server, "/", "-4"))
    assert answer == address


@pytest.mark.parametrize(("client", "server"), PATHS[:2])
def test_nothing_crosses_the_wire_in_the_clear(town: Town, client: str, server: str) -> None:
    with sniffing(town.mesh, THEIRS, "secret") as sniffer:
        town.mesh.wait("an answer", lambda: town.call(client, server, f"/secret-{server}."))
        assert sniffer.seen("node1") == set()


def test_each_sees_the_others_identity(town: Town) -> None:
    """Certificates of one authority, given to our agent and to ztunnel, name whoever calls and is called."""
    for client, server in PATHS[:2]:
        town.mesh.wait("an answer", lambda client=client, server=server: town.call(client, server))  # type: ignore[misc]
    ours, theirs = (town.identity(name) for name in ("ours", "theirs"))
    our_client, their_client = (town.identity(name) for name in ("our-client", "their-client"))
    (flow, *_) = town.mesh.wait(
        "a record of the call to theirs", lambda: town.flows("theirs", reporter="source")
    )
    assert flow["destination"]["identity"] == theirs and flow["mutualTls"]
    (flow, *_) = town.mesh.wait(
        "a record of the call to ours", lambda: town.flows("ours", reporter="destination")
    )
    assert flow["source"]["identity"] == their_client and flow["mutualTls"]
    town.mesh.wait(
        "ztunnel's lines of both",
        lambda: (
            town.ztunnel_lines(f'src.identity="{our_client}"', 'direction="inbound"')
            and town.ztunnel_lines(f'dst.identity="{ours}"', 'direction="outbound"')
        ),
    )


@pytest.mark.parametrize(
    ("server", "denied", "allowed"),
    [("theirs", "our-client", "their-client"), ("ours", "their-client", "our-client")],
)
def test_a_policy_about_the_others_identity_is_enforced(
    town: Town, server: str, denied: str, allowed: str
) -> None:
    """ztunnel acknowledges policies as our nodes do: `Acknowledged` speaks for every node."""
    spec = {
        "selector": {"matchLabels": {"app": server}},
        "action": "DENY",
        "rules": [{"from": [{"source": {"serviceAccounts": [denied]}}]}],
    }
    metadata = {"name": f"not-{denied}", "namespace": town.namespace}
    kind = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    town.mesh.wait("an answer before", lambda: town.call(denied, server))
    town.mesh.apply({**kind, "metadata": metadata, "spec": spec})
    policy = f"authorizationpolicy/not-{denied}"
    town.mesh.kubectl(
        "wait",
        "-n",
        town.namespace,
        policy,
        "--for=condition=ambit.io/Acknowledged",
        "--timeout=110s",
    )
    assert town.call(denied, server) == ""
    assert town.call(allowed, server) != ""
    town.mesh.kubectl("delete", "-n", town.namespace, policy)
    town.mesh.wait("an answer afterwards", lambda: town.call(denied, server))


def test_strict_mutual_tls_refuses_plain_text_on_both(town: Town) -> None:
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": town.namespace},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    with make_namespace(town.mesh, enrolled=False) as outside:
        town.mesh.apply(pod("plain", "node1", ["sleep", "infinity"], namespace=outside))
        town.mesh.kubectl("wait", "-n", outside, "--for=condition=Ready", "pod/plain", "--timeout=110s")
        stranger = Town(town.mesh, outside)
        hosts = [f"{server}.{town.namespace}" for server in ("ours", "theirs")]
        for host in hosts:
            town.mesh.wait(f"{host} answers a stranger", lambda host=host: stranger.call("plain", host))  # type: ignore[misc]
        town.mesh.apply(policy)
        for host in hosts:
            town.mesh.wait(
                f"{host} refuses a stranger",
                lambda host=host: not stranger.call("plain", host),  # type: ignore[misc]
            )
        for client, server in PATHS:
            assert town.call(client, server) != ""
        town.mesh.kubectl("delete", "-n", town.namespace, "peerauthentication/default")


def test_a_pod_that_ends_is_left_by_ztunnel(town: Town) -> None:
    """The namespace goes only when ztunnel has let go, so a pod of the same name starts at once."""
    value = pod("short", THEIRS, ["sleep", "infinity"], namespace=town.namespace)
    for _ in range(2):
        town.mesh.apply(value)
        town.mesh.kubectl(
            "wait", "-n", town.namespace, "--for=condition=Ready", "pod/short", "--timeout=110s"
        )
        town.mesh.kubectl("delete", "-n", town.namespace, "pod/short", "--timeout=110s")
    listed = town.mesh.on_node(THEIRS, "curl", "-sS", "http://127.0.0.1:15000/config_dump").stdout
    names = {each["info"]["name"] for each in json.loads(listed)["workloadState"].values()}
    assert names == {"theirs", "their-client"}


def test_ztunnel_took_everything_that_it_was_sent(town: Town) -> None:
    """After all of the above: policies and pods that came and went."""
    plane = town.mesh.kubectl("get", "pod", "-n", SYSTEM, "-l", "app=istiod", "-o", "name").stdout.strip()

    def states() -> list[dict[str, Any]]:
        found = town.mesh.exec(
            SYSTEM, plane, "python3", "-c", READ, "http://localhost:15014/debug/syncz"
        ).stdout
        return [
            state
            for entry in json.loads(found)
            if entry["node"] == THEIRS and entry["proxy"].startswith("ztunnel~")
            for state in entry["types"].values()
        ]

    def settled() -> bool:
        found = states()
        assert not any(state.get("error") for state in found), found
        return len(found) == 2 and all(state["acked"] == state["sent"] >= 0 for state in found)

    town.mesh.wait("both types are acknowledged", settled)


def test_commands_show_a_ztunnel_beside_our_node_proxies(town: Town) -> None:
    """By what the control plane says of it, and by its own `/config_dump`."""

    def shown() -> dict[str, Any] | None:
        found = json.loads(town.mesh.ambit("ps", "-o", "json").stdout)
        return next((each for each in found if each["type"] == "ztunnel" and each["sync"] == "SYNCED"), None)

    proxy = town.mesh.wait("ztunnel is in sync", shown)
    assert (proxy["node"], proxy["envoy"]) == (THEIRS, "")
    assert proxy["version"] not in ("", "unknown")
    assert f"ztunnel version: {proxy['version']} (1 running)" in town.mesh.ambit("version").stdout
    certificates = json.loads(town.mesh.ambit("certs", "--node", THEIRS, "-o", "json").stdout)[THEIRS]
    assert town.identity("theirs") in {each["identity"] for each in certificates}
    checked = json.loads(town.mesh.ambit("check", "-o", "json", check=False).stdout)
    assert f"node {THEIRS} has no node proxy" not in json.dumps(checked)
