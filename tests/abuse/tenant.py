"""Two tenants of one mesh: an attacker with rights in its own namespace, and a victim whose service is measured."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ambit.core.names import INLINE_CLASS, WAYPOINT_FOR_LABEL
from ambit.testing.mesh import PATIENCE, Mesh, run
from tests.mesh.pods import apply_in, make_namespace, pod

# Sends requests until standard input says to stop, each on a new connection or all on one; prints one JSON report.
_MEASURE = """
import http.client, json, select, sys, time
host, path, pause, is_kept = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "kept"
client, taken, failed, begun = None, [], [], False
while not select.select([sys.stdin], [], [], pause)[0]:
    started = time.monotonic()
    try:
        client = client or http.client.HTTPConnection(host, timeout=30)
        client.request("GET", path)
        answer = client.getresponse()
        answer.read()
        if answer.status != 200:
            failed.append(str(answer.status))
    except (OSError, http.client.HTTPException) as problem:
        failed.append(repr(problem))
    taken.append(time.monotonic() - started)
    if client is not None and (not is_kept or failed):
        client.close()
        client = None
    if not begun:
        begun = True
        print("begun", flush=True)
print(json.dumps({"seconds": taken, "failures": failed}), flush=True)
"""

_SERVER = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
Server(("::", 8080), Handler).serve_forever()
"""


class Measured(msgspec.Struct):
    """What a victim's client saw while an attack went on."""

    seconds: list[float] = msgspec.field(default_factory=list)
    """How long each request took."""
    failures: list[str] = msgspec.field(default_factory=list)
    """Statuses other than 200, and errors."""

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the requests ended."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Victim:
    """A namespace with Service `web` (port 80, one pod on the last node) and a pod `client` on the first."""

    mesh: Mesh
    namespace: str

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Applies objects to the victim's namespace with the operator's rights."""
        self.mesh.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=yaml.safe_dump_all(list(objects)))

    def bind_waypoint(self, of_class: str = "istio-waypoint") -> None:
        """Gives the namespace a waypoint named `waypoint` and waits until it is programmed."""
        self.mesh.kubectl(
            "label", "namespace", self.namespace, "istio.io/use-waypoint=waypoint", "--overwrite"
        )
        self.apply(waypoint(of_class))
        words = ("--for=condition=Programmed", "gateway/waypoint", "--timeout=110s")
        self.mesh.kubectl("wait", "-n", self.namespace, *words)

    def get_status(self, path: str = "/", host: str = "web") -> str:
        """The status of one request from the victim's client; `000` when there is no answer."""
        command = ("curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", f"http://{host}{path}")
        return self.mesh.exec(self.namespace, "client", *command, check=False).stdout

    @contextmanager
    def measure(self, *, path: str = "/", pause: float = 0.02, kept: bool = False) -> Iterator[Measured]:
        """Sends requests from the victim's client while the block runs; the yielded report is filled at its end."""
        script = ("python3", "-uc", _MEASURE, "web", path, str(pause), "kept" if kept else "new")
        words = ("exec", "-i", "-n", self.namespace, "client", "--", *script)
        client = self.mesh.popen(*words, stdin=subprocess.PIPE)
        report = Measured()
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "begun\n"
            yield report
        finally:
            printed, _ = client.communicate("stop", timeout=PATIENCE)
        found = msgspec.json.decode(printed.strip().splitlines()[-1], type=Measured)
        report.seconds, report.failures = found.seconds, found.failures


@dataclass
class Attacker:
    """A namespace, and a service account that may do everything in it and nothing elsewhere."""

    mesh: Mesh
    namespace: str
    kubeconfig: Path
    environment: dict[str, str] = field(default_factory=dict)

    def kubectl(
        self, *words: str, stdin: str | None = None, check: bool = False, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl with the attacker's rights, in the attacker's namespace."""
        assert self.mesh.kubectl_program is not None, "this test needs a kubectl program"
        command = [self.mesh.kubectl_program, f"--kubeconfig={self.kubeconfig}", *words]
        return run(command, self.environment, check=check, timeout=timeout, stdin=stdin)

    def apply(self, *objects: Mapping[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        """Creates or replaces objects with the attacker's rights. Server-side: large objects need no annotation."""
        words = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        return self.kubectl(*words, stdin=yaml.safe_dump_all(list(objects)), check=check)

    def add_pod(self, name: str, node: str, command: Sequence[str], **more: Any) -> None:
        """Makes a pod on a node and waits until it is ready."""
        self.apply(pod(name, node, command, namespace=self.namespace, **more))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=110s", check=True)


def waypoint(of_class: str, name: str = "waypoint") -> dict[str, Any]:
    """A waypoint for services and their pods; one without pods of its own takes services only."""
    traffic = "service" if of_class == INLINE_CLASS else "all"
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "labels": {WAYPOINT_FOR_LABEL: traffic}},
        "spec": {
            "gatewayClassName": of_class,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


@contextmanager
def make_victim(mesh: Mesh) -> Iterator[Victim]:
    """An enrolled namespace with `web` and `client`, ready."""
    with make_namespace(mesh) as namespace:
        first, last = mesh.nodes[0], mesh.nodes[-1]
        ready = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
        apply_in(
            mesh,
            namespace,
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "web"},
                    "spec": {
                        "selector": {"app": "web"},
                        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
                    },
                },
                pod("web", last, ["python3", "-uc", _SERVER], labels={"app": "web"}, **ready),
                pod("client", first, ["sleep", "3600"]),
            ],
        )
        victim = Victim(mesh, namespace)
        mesh.wait("the victim's service answers", lambda: victim.get_status() == "200")
        yield victim


@contextmanager
def make_attacker(mesh: Mesh) -> Iterator[Attacker]:
    """An enrolled namespace with an account `tenant` that has every right in it, and a kubeconfig of that account."""
    with make_namespace(mesh) as namespace, tempfile.TemporaryDirectory(prefix="ambit-tenant-") as folder:
        mesh.apply(_rights(namespace))
        token = mesh.kubectl("create", "token", "tenant", "-n", namespace, "--duration=1h").stdout.strip()
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(_kubeconfig(mesh.kubeconfig.read_text(), namespace, token))
        attacker = Attacker(mesh, namespace, kubeconfig, dict(mesh.environment))
        assert attacker.kubectl("auth", "can-i", "create", "pods").stdout.strip() == "yes"
        yield attacker


def _rights(namespace: str) -> list[dict[str, Any]]:
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    group = "rbac.authorization.k8s.io"
    names = {"name": "tenant", "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": names},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": names, "rules": [everything]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": names,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "ServiceAccount", **names}],
        },
    ]


def _kubeconfig(operators: str, namespace: str, token: str) -> str:
    """The operator's kubeconfig with the tenant's token and namespace instead of the operator's."""
    found = yaml.safe_load(operators)
    current = next(each for each in found["contexts"] if each["name"] == found["current-context"])
    cluster = next(each for each in found["clusters"] if each["name"] == current["context"]["cluster"])
    context = {"cluster": cluster["name"], "user": "tenant", "namespace": namespace}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{"name": "tenant", "user": {"token": token}}],
            "contexts": [{"name": "tenant", "context": context}],
            "current-context": "tenant",
        }
    )
