"""What is said from objects alone is what the running mesh does."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, web_and_client

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

KINDS = "namespaces,nodes,pods,services,endpointslices,authorizationpolicies,peerauthentications"
ONLY_CLIENT = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: only-client}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  rules:
  - from: [{{source: {{principals: ["cluster.local/ns/{namespace}/sa/default"]}}}}]
    to: [{{operation: {{ports: ["8080"]}}}}]
"""


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Iterator[str]:
    """An enrolled namespace with a server, a client that may ask it, and the policy that says so."""
    with make_namespace(mesh) as name:
        apply_in(mesh, name, [*web_and_client(), yaml.safe_load(ONLY_CLIENT.format(namespace=name))])
        mesh.wait(
            "the server answers",
            lambda: mesh.exec(name, "client", "curl", "-sf", "http://web", check=False).returncode == 0,
        )
        yield name


def compiled(mesh: Mesh, *words: str) -> list[dict[str, Any]]:
    """Documents of `ambit compile` for all that the cluster has."""
    objects = mesh.kubectl("get", KINDS, "-A", "-o", "yaml").stdout
    done = subprocess.run(
        [sys.executable, "-m", "ambit", "compile", "-f", "-", *words],
        input=objects,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_compile_says_from_files_what_nodes_were_told(mesh: Mesh, web: str) -> None:
    documents = compiled(mesh)
    workloads = {each["workload"]["name"]: each["workload"] for each in documents if "workload" in each}
    told = {each["name"]: each for each in mesh.dump("workloads") if each["namespace"] == web}
    assert set(told) == {"web", "client"}
    for name, each in told.items():
        assert workloads[name]["uid"] == each["uid"]
        assert workloads[name]["tunnelProtocol"] == "HBONE" == each["protocol"]
        assert workloads[name].get("authorizationPolicies", []) == each.get("authorizationPolicies", [])
    assert workloads["web"]["authorizationPolicies"] == [f"{web}/only-client"]
    (policy,) = [each for each in documents if each.get("namespace") == web and "rules" in each]
    (known,) = [each for each in mesh.dump("policies") if each["namespace"] == web]
    assert (policy["name"], policy["scope"]) == (known["name"], "WORKLOAD_SELECTOR")


def test_compile_says_from_files_what_envoys_were_told(mesh: Mesh, web: str) -> None:
    documents = compiled(mesh, "-o", "envoy", "--pod", f"{web}/web")
    (policy,) = [each for each in documents if each["name"].startswith("policy|")]
    assert f"{web}/only-client[0]" in yaml.safe_dump(policy)
