"""The command line against a running mesh: every reading command, its formats, and its exit codes."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ambit import __version__
from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, web_and_client

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

ALLOW_ALL = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "all"},
    "spec": {"action": "ALLOW", "rules": [{}]},
}

BROKEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bad}
spec: {action: ALLOW, rules: [{from: [{source: {ipBlocks: [x]}}]}]}
"""

MISSPELT = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: misspelt}
spec:
  selector: {matchLabels: {app: wbe}}
  action: DENY
  rules: [{from: [{source: {namespaces: [defualt]}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: idle}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: old}
spec: {ingressClassName: istio, defaultBackend: {service: {name: web, port: {number: 80}}}}
"""

HOLD = """
import socket, sys
with socket.create_connection(("web", 80), 30) as connection:
    connection.sendall(b"GET / HTTP/1.1\\r\\n")
    print("open", flush=True)
    sys.stdin.read()
"""

TABLES = {
    "ps": ["NAME", "NODE", "TYPE", "GATEWAY", "VERSION", "ENVOY", "SYNC", "CONTROL PLANE"],
    "workloads": ["NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"],
    "services": ["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"],
    "policies": ["NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"],
    "certs": ["NODE", "IDENTITY", "STATUS", "ENDS IN", "RENEWED IN", "ROOT"],
    "connections": ["NODE", "WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"],
    "node status": ["NODE"],
}  # fmt: skip
LOCAL_TABLES = {
    "local status": ["PART", "PID", "RSS", "PSS", "COMMAND"],
    "local image list": ["PATTERN", "SOURCE", "COMMAND"],
    "local node list": ["NAME", "IPV4", "IPV6", "PODS IPV4", "PODS IPV6"],
    "local forward list": ["ADDRESS", "NAMESPACE", "SERVICE", "PORT"],
}  # fmt: skip


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Iterator[str]:
    """An enrolled namespace with a server, a client that has asked it once, and a policy."""
    name = f"n{uuid.uuid4().hex[:8]}"
    labels = {"istio.io/dataplane-mode": "ambient"}
    mesh.create_namespace(name, labels)
    apply_in(mesh, name, [*web_and_client("tcp"), ALLOW_ALL])
    mesh.wait(
        "the server answers",
        lambda: mesh.exec(name, "client", "curl", "-sf", "http://web", check=False).returncode == 0,
    )
    mesh.wait("node proxies know it", lambda: _is_known(mesh, name))
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")


def _is_known(mesh: Mesh, namespace: str) -> bool:
    """A first answer may come without the mesh, before a node has heard of the service."""
    kinds = {"workloads": "web", "services": "web", "policies": "all"}
    if any((namespace, each) not in _names(mesh, kind) for kind, each in kinds.items()):
        return False
    workload = of(mesh.dump("workloads"), namespace=namespace, name="web")
    endpoints = of(mesh.dump("services"), namespace=namespace, name="web")["endpoints"]
    return workload["protocol"] == "HBONE" and len(endpoints) == 1


def _names(mesh: Mesh, kind: str) -> list[tuple[str, str]]:
    return [(each["namespace"], each["name"]) for each in mesh.dump(kind)]


def of(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    [found] = [row for row in rows if wanted.items() <= row.items()]
    return found


OF_THE_LAPTOP = pytest.mark.laptop_only("`ambit local` is about the laptop cluster")


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("words", TABLES)
def test_every_list_has_a_table_and_the_same_data_in_json_and_yaml(mesh: Mesh, words: str) -> None:
    assert listed(mesh, words, TABLES[words])


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("words", LOCAL_TABLES)
@OF_THE_LAPTOP
def test_every_local_list_has_a_table_and_the_same_data(mesh: Mesh, words: str) -> None:
    listed(mesh, words, LOCAL_TABLES[words])


def listed(mesh: Mesh, words: str, wanted: list[str]) -> Any:
    """What the command lists, once its table has these columns and its other formats say the same."""
    command = words.split()
    header = mesh.ambit(*command).stdout.splitlines()[0].split("   ")
    columns = [column.strip() for column in header if column]
    assert columns[: len(wanted)] == wanted

    def in_both() -> tuple[Any, Any] | None:
        as_json = json.loads(mesh.ambit(*command, "-o", "json").stdout)
        as_yaml = yaml.safe_load(mesh.ambit(*command, "-o", "yaml").stdout)
        assert type(as_json) is type(as_yaml)
        return (as_json, as_yaml) if len(as_json) == len(as_yaml) else None

    # Other pods may come or go between the two.
    as_json, _ = mesh.wait("both formats list the same", in_both)
    return as_json


def test_check_is_content_and_names_what_is_wrong(mesh: Mesh, web: str) -> None:
    assert "Status check results are √" in mesh.ambit("check", "--wait", "100").stdout
    for output in ("json", "yaml"):
        told = yaml.safe_load(mesh.ambit("check", "--wait", "100", "-o", output).stdout)
        assert told["success"] is True
        assert {check["id"] for check in told["checks"]} >= {"api-reachable", "certificates", "captured"}
    mesh.kubectl("apply", "-n", web, "-f", "-", stdin=BROKEN)
    try:
        short = mesh.wait("the finding is reported", lambda: _with(mesh, "AMB0212"))
        assert f"AuthorizationPolicy {web}/bad" in short
        assert "ambit explain AMB0212" in short
    finally:
        mesh.kubectl("delete", "-n", web, "authorizationpolicy", "bad")


def test_check_names_what_a_policy_misses_and_what_has_no_effect(mesh: Mesh, web: str) -> None:
    mesh.kubectl("apply", "-n", web, "-f", "-", stdin=MISSPELT)
    try:
        short = mesh.ambit("check", "--wait", "100", "-o", "short").stdout
        assert f"AuthorizationPolicy {web}/misspelt spec.selector: no pod in {web} has app=wbe" in short
        assert "source.namespaces[0]: no namespace 'defualt'; is it 'default'?" in short
        assert f"VirtualService {web}/idle: this version does nothing with the kind" in short
        assert f"Ingress {web}/old at spec.ingressClassName: ambit serves no Ingress" in short
    finally:
        mesh.kubectl(
            "delete", "-n", web, "authorizationpolicy/misspelt", "virtualservice/idle", "ingress/old"
        )


def _with(mesh: Mesh, text: str) -> str | None:
    """`check -o short`, when it says this, as an error of objects."""
    done = mesh.ambit("check", "-o", "short", check=False)
    return done.stdout if text in done.stdout and done.returncode == 79 else None


def test_what_node_proxies_know(mesh: Mesh, web: str) -> None:
    workload = of(mesh.dump("workloads"), namespace=web, name="web")
    assert workload["protocol"] == "HBONE"
    service = of(mesh.dump("services"), namespace=web, name="web")
    assert [each["status"] for each in service["endpoints"].values()] == ["Healthy"]
    assert of(mesh.dump("policies"), namespace=web, name="all")["action"] == "Allow"
    node = workload["node"]
    [certificates] = mesh.dump("certs", "--node", node).values()
    identity = f"spiffe://cluster.local/ns/{web}/sa/default"
    assert of(certificates, identity=identity)["state"] == "Available"
    synced = {("SYNCED", "1.")}
    mesh.wait(
        "all are in sync", lambda: {(each["sync"], each["envoy"][:2]) for each in mesh.dump("ps")} == synced
    )


def test_open_connections_are_listed(mesh: Mesh, web: str) -> None:
    words = ("exec", "-i", "-n", web, "client", "--", "python3", "-c", HOLD)
    with mesh.popen(*words, stdin=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        listed = mesh.wait("the connection is listed", lambda: _connections(mesh, f"client.{web}"))
        assert listed[0][2] == "Outbound"
        holder.communicate("", timeout=110)


def _connections(mesh: Mesh, workload: str) -> list[list[str]]:
    rows = [line.split() for line in mesh.ambit("connections").stdout.splitlines()[1:]]
    return [row for row in rows if row[1] == workload]


def test_flows_in_each_form(mesh: Mesh, web: str) -> None:
    words = ("flows", "--last", "1000", "--from", f"{web}/client")
    line = mesh.wait("the flow is reported", lambda: mesh.ambit(*words).stdout.splitlines()[:1])[0]
    assert f"{web}/client" in line and f"{web}/web" in line and "ALLOWED" in line
    flows = [json.loads(line) for line in mesh.ambit(*words, "-o", "json").stdout.splitlines()]
    documents = list(yaml.safe_load_all(mesh.ambit(*words, "-o", "yaml").stdout))
    assert {flow["source"]["workload"] for flow in flows} == {"client"}
    assert {document["destination"]["workload"] for document in documents} == {"web"}
    assert mesh.ambit("flows", "--denied", "--from", f"{web}/client").stdout == ""


def test_last_counts_what_was_chosen(mesh: Mesh, web: str) -> None:
    """Other pods' connections, or the other node's report of the same one, take no place."""
    words = ("flows", "--last", "1", "--to", f"{web}/web")
    mesh.wait("the flow is reported", lambda: mesh.ambit(*words).stdout)

    def newest() -> float:
        fetched = mesh.ambit("flows", "--last", "1000", "-o", "json").stdout.splitlines()
        chosen = [flow for flow in map(json.loads, fetched) if flow["destination"].get("workload") == "web"]
        return float(chosen[-1]["time"])

    def chosen() -> tuple[float, float] | None:
        """And the newest, unless another report came meanwhile."""
        before, found = newest(), json.loads(mesh.ambit(*words, "-o", "json").stdout)["time"]
        return (found, before) if newest() == before else None

    found, wanted = mesh.wait("no report comes between", chosen)
    assert found == wanted


@pytest.mark.feature("F160")
def test_version_of_everything(mesh: Mesh) -> None:
    def settled() -> dict[str, Any] | None:
        """Those that tests before have replaced may still end."""
        found = dict(mesh.dump("version"))
        return (
            found
            if (len(found["controlPlanes"]), len(found["nodeProxies"])) == (1, len(mesh.nodes))
            else None
        )

    told = mesh.wait("one control plane, and a proxy for each node", settled)
    assert told["client"]["version"] == __version__
    assert [part["version"] for part in told["controlPlanes"]] == [__version__]
    assert [part["version"] for part in told["nodeProxies"]] == [__version__] * len(mesh.nodes)
    envoy = told["nodeProxies"][0]["envoy"]
    nodes = len(mesh.nodes)
    text = mesh.ambit("version").stdout.splitlines()
    assert text[1:] == [
        f"control plane version: {__version__} (1 running)",
        f"node proxy version: {__version__} ({nodes} running)",
        f"Envoy version: {envoy} ({nodes} running)",
    ]


@OF_THE_LAPTOP
def test_local_commands(mesh: Mesh, web: str, tmp_path: Path) -> None:
    path = Path(mesh.ambit("local", "kubeconfig", "--path").stdout.strip())
    assert path.read_text() == mesh.ambit("local", "kubeconfig").stdout
    assert path.stat().st_mode & 0o777 == 0o600
    elsewhere = [sys.executable, "-m", "ambit", "ps", "-o", "json", "--kubeconfig", path]
    assert len(json.loads(subprocess.run(elsewhere, check=True, capture_output=True).stdout)) == 2
    parts = {each["part"] for each in mesh.dump("local", "status")}
    assert {"supervisor", "cluster", "shim"} <= parts
    assert mesh.ambit("local", "logs", "cluster").returncode == 0
    addresses = mesh.ambit("local", "node", "exec", "node1", "--", "ip", "-br", "address").stdout
    assert "172.30.0.11" in addresses
    assert (
        mesh.ambit("local", "node", "exec", "fabric", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    )


@OF_THE_LAPTOP
def test_an_image_is_mapped_listed_and_forgotten(mesh: Mesh, web: str) -> None:
    mesh.ambit("local", "image", "add", "acme/sleeper", "--", "sleep", "3600")
    listed = of(mesh.dump("local", "image", "list"), pattern="acme/sleeper")
    assert listed["command"] == ["sleep", "3600"]
    try:
        mesh.kubectl("run", "sleeper", "-n", web, "--image=acme/sleeper", "--restart=Never")
        mesh.kubectl("wait", "-n", web, "pod/sleeper", "--for=condition=Ready", "--timeout=110s")
        mesh.kubectl("delete", "pod", "sleeper", "-n", web, "--now")
    finally:
        mesh.ambit("local", "image", "remove", "acme/sleeper")
    assert mesh.ambit("local", "image", "remove", "acme/sleeper", check=False).returncode == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nonsense",), 2, "No such command"),
        (("workloads", "--node", "nowhere"), 1, "no node proxy on node 'nowhere'"),
        (("workloads", "-o", "xml"), 2, "Invalid value for '-o'"),
        (("explain", "AMB9999"), 2, "is no finding"),
    ],
)
def test_mistakes_end_with_a_code_and_a_sentence(
    mesh: Mesh, words: tuple[str, ...], code: int, text: str
) -> None:
    named = words[0] in ("nonsense", "explain")
    done = (
        subprocess.run([sys.executable, "-m", "ambit", *words], check=False, capture_output=True, text=True)
        if named
        else mesh.ambit(*words, check=False)
    )
    assert_mistake(done, code, text)


@OF_THE_LAPTOP
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("check", "--kubeconfig", "/nowhere"), 2, "cannot read the kubeconfig /nowhere"),
        (("local", "logs", "nothing"), 2, "there are: cluster"),
        (("local", "node", "exec", "nowhere", "--", "true"), 2, "there are: fabric, node1, node2"),
        (("local", "forward", "add", "nothing", "80"), 2, "no service default/nothing"),
    ],
)
def test_mistakes_about_the_laptop_end_so_too(
    mesh: Mesh, words: tuple[str, ...], code: int, text: str
) -> None:
    assert_mistake(mesh.ambit(*words, check=False), code, text)


def assert_mistake(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
