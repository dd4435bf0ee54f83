"""The stock kubectl against the cluster: every verb that people use day by day."""

import threading
import urllib.request
from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: python:3
        command: [python3, -u, -m, http.server, "8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


BAD_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad}
spec: {rules: [{matches: [{path: {type: Exact, value: nope}}]}]}
"""

BAD_DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: bars.b.io}
spec:
  group: b.io
  scope: Namespaced
  names: {kind: Bar, plural: bars}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {a: {type: nope}}}}}
"""


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Iterator[str]:
    """A namespace with a two-replica web server."""
    mesh.kubectl("create", "namespace", "kubectl")
    mesh.kubectl("apply", "-n", "kubectl", "-f", "-", stdin=WEB)
    mesh.kubectl("rollout", "status", "-n", "kubectl", "deploy/web", "--timeout=110s")
    yield "kubectl"
    mesh.kubectl("delete", "namespace", "kubectl", "--wait=false")


def test_apply_again_changes_nothing(mesh: Mesh, web: str) -> None:
    assert "deployment.apps/web unchanged" in mesh.kubectl("apply", "-n", web, "-f", "-", stdin=WEB).stdout


def test_server_side_apply_names_the_conflict(mesh: Mesh, web: str) -> None:
    mesh.kubectl("create", "configmap", "settings", "-n", web, "--from-literal=a=1")
    changed = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '2'}\n"
    refused = mesh.kubectl(
        "apply", "-n", web, "--server-side", "--field-manager=other", "-f", "-", stdin=changed, check=False
    )
    assert refused.returncode != 0
    assert ".data.a" in refused.stderr
    mesh.kubectl(
        "apply",
        "-n",
        web,
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
        stdin=changed,
    )
    assert mesh.kubectl("get", "cm", "settings", "-n", web, "-o", "jsonpath={.data.a}").stdout == "2"


def test_get_prints_columns(mesh: Mesh, web: str) -> None:
    header = mesh.kubectl("get", "pods", "-n", web, "-o", "wide").stdout.splitlines()[0].split()
    assert header[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert "2/2" in mesh.kubectl("get", "deploy", "web", "-n", web).stdout


def test_get_watch_follows_changes(mesh: Mesh, web: str) -> None:
    with mesh.popen("get", "configmaps", "-n", web, "-w", "-o", "name") as watch:
        assert watch.stdout is not None
        guard = threading.Timer(110, watch.kill)
        guard.start()
        try:
            mesh.kubectl("create", "configmap", "watched", "-n", web)
            assert any("configmap/watched" in line for line in watch.stdout)
        finally:
            guard.cancel()
            watch.kill()


def test_describe_shows_events(mesh: Mesh, web: str) -> None:
    described = mesh.kubectl("describe", "pods", "-n", web, "-l", "app=web", "--show-events=true").stdout
    assert "Started" in described
    assert "Successfully assigned" in described


def test_logs_follow_until_the_request_is_seen(mesh: Mesh, web: str) -> None:
    pod = mesh.kubectl(
        "get", "pods", "-n", web, "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"
    ).stdout
    with mesh.popen("logs", "-n", web, pod, "-f") as logs:
        assert logs.stdout is not None
        guard = threading.Timer(110, logs.kill)
        guard.start()
        try:
            assert any('"GET / HTTP' in line for line in logs.stdout), "probes are logged by the server"
        finally:
            guard.cancel()
            logs.kill()


def test_exec_returns_output_and_exit_code(mesh: Mesh, web: str) -> None:
    assert mesh.exec(web, "deploy/web", "echo", "hello").stdout == "hello\n"
    assert mesh.exec(web, "deploy/web", "sh", "-c", "exit 7", check=False).returncode == 7
    piped = mesh.kubectl("exec", "-i", "-n", web, "deploy/web", "--", "cat", stdin="through\n")
    assert piped.stdout == "through\n"


def test_port_forward_carries_requests(mesh: Mesh, web: str) -> None:
    with mesh.popen("port-forward", "-n", web, "service/web", ":80") as forward:
        assert forward.stdout is not None
        guard = threading.Timer(110, forward.kill)
        guard.start()
        try:
            port = int(forward.stdout.readline().split("127.0.0.1:")[1].split()[0])
            for _ in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                    assert answer.status == 200
        finally:
            guard.cancel()
            forward.kill()


def test_scale_and_wait(mesh: Mesh, web: str) -> None:
    mesh.kubectl("scale", "-n", web, "deploy/web", "--replicas=3")
    mesh.kubectl(
        "wait", "-n", web, "deploy/web", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=110s"
    )
    mesh.kubectl("scale", "-n", web, "deploy/web", "--replicas=2")
    mesh.kubectl("wait", "-n", web, "deploy/web", "--for=jsonpath={.status.replicas}=2", "--timeout=110s")


def test_rollout_restart_replaces_pods(mesh: Mesh, web: str) -> None:
    names = ("get", "pods", "-n", web, "-l", "app=web", "-o", "name")
    before = set(mesh.kubectl(*names).stdout.split())
    mesh.kubectl("rollout", "restart", "-n", web, "deploy/web")
    mesh.kubectl("rollout", "status", "-n", web, "deploy/web", "--timeout=110s")
    mesh.wait("the old pods are gone", lambda: not before & set(mesh.kubectl(*names).stdout.split()))


def test_delete_waits_until_it_is_gone(mesh: Mesh, web: str) -> None:
    mesh.kubectl(
        "run", "once", "-n", web, "--image=busybox:1", "--restart=Never", "--command", "--", "sleep", "600"
    )
    mesh.kubectl("wait", "-n", web, "pod/once", "--for=condition=Ready", "--timeout=110s")
    mesh.kubectl("delete", "pod", "once", "-n", web, "--grace-period=1")
    assert mesh.kubectl("get", "pod", "once", "-n", web, check=False).returncode != 0


def test_server_side_apply_and_dry_run(mesh: Mesh, web: str) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: '%s'}\n"
    apply = ("apply", "-n", web, "--server-side", "-f", "-")
    told = mesh.kubectl(*apply, "--dry-run=server", stdin=manifest % 1).stdout
    assert told == "configmap/applied serverside-applied (server dry run)\n"
    assert mesh.kubectl("get", "cm", "applied", "-n", web, check=False).returncode != 0
    for text in ("1", "2"):
        mesh.kubectl(*apply, stdin=manifest % text)
        assert mesh.kubectl("get", "cm", "applied", "-n", web, "-o", "jsonpath={.data.a}").stdout == text
    difference = mesh.kubectl("diff", "-n", web, "--server-side", "-f", "-", stdin=manifest % 3, check=False)
    assert difference.returncode == 1
    assert '+  a: "3"' in difference.stdout


def test_rollout_undo_goes_back(mesh: Mesh, web: str) -> None:
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    mesh.kubectl("set", "image", "-n", web, "deploy/web", "web=busybox:1")
    mesh.kubectl("rollout", "status", "-n", web, "deploy/web", "--timeout=110s")
    assert mesh.kubectl("get", "deploy", "web", "-n", web, "-o", image).stdout == "busybox:1"
    mesh.kubectl("rollout", "undo", "-n", web, "deploy/web")
    mesh.kubectl("rollout", "status", "-n", web, "deploy/web", "--timeout=110s")
    assert mesh.kubectl("get", "deploy", "web", "-n", web, "-o", image).stdout == "python:3"


def test_a_job_runs_to_its_end(mesh: Mesh, web: str) -> None:
    mesh.kubectl("create", "job", "greet", "-n", web, "--image=busybox:1", "--", "echo", "hello")
    mesh.kubectl("wait", "-n", web, "job/greet", "--for=condition=Complete", "--timeout=110s")
    mesh.wait("it has said so", lambda: mesh.kubectl("logs", "-n", web, "job/greet").stdout == "hello\n")


def test_explain(mesh: Mesh) -> None:
    assert "containers" in mesh.kubectl("explain", "pod.spec").stdout
    assert "selector" in mesh.kubectl("explain", "authorizationpolicies.spec").stdout


def test_api_resources(mesh: Mesh) -> None:
    listed = mesh.kubectl("api-resources").stdout
    for plural in ("pods", "deployments", "authorizationpolicies", "httproutes", "customresourcedefinitions"):
        assert f"\n{plural} " in listed


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 70000}]}",
            "spec.ports[0].port: Invalid value: 70000",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: bad}\nspec: {action: MAYBE}",
            'spec.action: Unsupported value: "MAYBE"',
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {container: []}",
            'unknown field "spec.container"',
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: bad\n", "error parsing"),
        (
            "apiVersion: v1\nkind: Nothing\nmetadata: {name: bad}",
            'no matches for kind "Nothing" in version "v1"',
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.9.9, ports: [{port: 80}]}",
            "may not change once set",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: three}",
            "cannot unmarshal string into Go struct field",
        ),
        (BAD_ROUTE, "spec.rules[0].matches[0].path: Invalid value"),
        (
            BAD_DEFINITION,
            'openAPIV3Schema.properties[a].type: Unsupported value: "nope": supported values: "array"',
        ),
    ],
)
def test_bad_objects_are_refused_with_the_field(mesh: Mesh, web: str, manifest: str, expected: str) -> None:
    refused = mesh.kubectl("apply", "-n", web, "-f", "-", stdin=manifest, check=False)
    assert refused.returncode != 0
    assert expected in refused.stderr
