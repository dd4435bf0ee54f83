"""What is said from objects alone is what the running mesh does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, known_everywhere, make_namespace, web_and_client

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


NOBODY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["8080"]}}]}]}
"""


def fetch(mesh: Mesh, namespace: str) -> bool:
    words = ("curl", "-sf", "-m", "30", "http://web")
    return mesh.exec(namespace, "client", *words, check=False).returncode == 0


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Iterator[str]:
    """An enrolled namespace with a server, a client that may ask it, and the policy that says so."""
    with make_namespace(mesh) as name:
        apply_in(mesh, name, [*web_and_client(), yaml.safe_load(ONLY_CLIENT.format(namespace=name))])
        mesh.wait("the server answers", lambda: fetch(mesh, name))
        known_everywhere(mesh, name, "web", "client", service="web")
        mesh.wait(
            "nodes know the policy", lambda: name in {each["namespace"] for each in mesh.dump("policies")}
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
    found = [each["workload"] for each in documents if "workload" in each]
    workloads = {each["name"]: each for each in found if each["namespace"] == web}
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


def why(mesh: Mesh, *words: str) -> tuple[int, dict[str, Any]]:
    done = mesh.ambit("why", *words, "-o", "json", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_why_names_the_rule_that_the_mesh_enforces_and_records_confirm_it(mesh: Mesh, web: str) -> None:
    question = (f"{web}/client", f"web.{web}:80")

    def confirmed(rule: str) -> dict[str, Any] | None:
        fetch(mesh, web)
        (ruling,) = why(mesh, *question)[1]["rulings"]
        agrees = ruling["rule"] == rule and ruling["confirmation"]["records"] == "agrees"
        return ruling if agrees and ruling["confirmation"].get("rule") == rule else None

    allowed = mesh.wait("records agree with what allows it", lambda: confirmed(f"{web}/only-client[0]"))
    assert (allowed["verdict"], allowed["pod"], allowed["port"]) == ("allowed", f"{web}/web", 8080)
    assert why(mesh, *question)[0] == 0

    mesh.kubectl("apply", "-n", web, "-f", "-", stdin=NOBODY)
    denied = mesh.wait("records agree with what denies it", lambda: confirmed(f"{web}/nobody[0]"))
    assert denied["verdict"] == "denied" and "only-client[0]" in denied["without"]
    assert why(mesh, *question)[0] == 1
    mesh.kubectl("delete", "-n", web, "authorizationpolicy", "nobody")
