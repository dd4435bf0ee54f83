"""Policies on the running mesh: what they enforce, what a broken one does, and how refusals are reported."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.settings import with_options

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

POD = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: python:3
    command: [python3, -u, -m, http.server, "8080"]
    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
"""

FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).status)
except OSError as problem:
    print(type(problem).__name__)
"""

GOOD = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: good}}
spec:
  selector: {{matchLabels: {{app: first}}}}
  action: DENY
  rules: [{{from: [{{source: {{principals: ["cluster.local/ns/{namespace}/sa/client"]}}}}]}}]
"""

BAD = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bad}
spec:
  selector: {matchLabels: {app: second}}
  action: ALLOW
  rules: [{from: [{source: {ipBlocks: [10.0.0/8]}}]}]
"""

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
"""


STRANGE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: strange-ports}
spec:
  selector: {matchLabels: {app: nobody}}
  action: DENY
  rules: [{to: [{operation: {ports: ["-1", "99999999999999999999", "", "8 0", "\u0663"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: strange-sources}
spec:
  selector: {matchLabels: {app: nobody}}
  action: DENY
  rules:
  - from:
    - source: {principals: ["**", "", "a*b"], namespaces: ["*-*"], ipBlocks: ["::1/200", "fe80::1%eth0"]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: strange-conditions}
spec:
  selector: {matchLabels: {app: nobody}}
  rules: [{when: [{key: nonsense, values: [a]}, {key: source.ip, values: [x]}, {key: "request.headers[", values: [a]}]}]
---
apiVersion: v1
kind: Service
metadata: {name: strange, labels: {istio.io/use-waypoint: nothing}}
spec: {selector: {app: first}, ports: [{name: http, port: 80, targetPort: no-such-name}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: strange, labels: {kubernetes.io/service-name: second}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.9.9], conditions: {ready: false}, targetRef: {kind: Pod, name: nobody, namespace: nowhere}}
"""


@pytest.fixture(scope="module")
def pods(mesh: Mesh) -> Iterator[str]:
    """An enrolled namespace with two servers and a client."""
    name = f"n{uuid.uuid4().hex[:8]}"
    labels = {"istio.io/dataplane-mode": "ambient"}
    mesh.create_namespace(name, labels)
    manifest = "".join(POD.format(name=pod) for pod in ("first", "second", "client"))
    mesh.kubectl("apply", "-n", name, "-f", "-", stdin=manifest)
    mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
    for server in ("first", "second"):
        mesh.wait(f"{server} answers", lambda server=server: fetch(mesh, name, server) == "200")
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def outsider(mesh: Mesh) -> Iterator[str]:
    """A namespace outside the mesh with a client."""
    name = f"n{uuid.uuid4().hex[:8]}"
    mesh.kubectl("create", "namespace", name)
    mesh.kubectl("apply", "-n", name, "-f", "-", stdin=POD.format(name="client"))
    mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod/client", "--timeout=110s")
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")


def fetch(mesh: Mesh, namespace: str, host: str, client: str = "client") -> str:
    """The HTTP status, or the error's name."""
    return mesh.exec(namespace, client, "python3", "-c", FETCH, f"http://{host}").stdout.strip()


def apply(mesh: Mesh, namespace: str, *manifests: str) -> None:
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin="---\n".join(manifests))


def condition(mesh: Mesh, namespace: str, policy: str, kind: str) -> dict[str, Any]:
    """A condition of a policy once it is there."""

    def find() -> dict[str, Any] | None:
        found = json.loads(
            mesh.kubectl("get", "authorizationpolicy", policy, "-n", namespace, "-o", "json").stdout
        )
        conditions = found.get("status", {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), None)

    return dict(mesh.wait(f"policy {policy} has the condition {kind}", find))


def denied(mesh: Mesh, policy: str, source: str) -> dict[str, Any]:
    """A refused connection of this policy from a source whose address starts with `source`, once reported."""

    def find() -> dict[str, Any] | None:
        lines = mesh.ambit("flows", "--denied", "--last", "1000", "-o", "json").stdout.splitlines()
        flows = [json.loads(line) for line in lines]
        assert all(flow["decision"] == "deny" for flow in flows)
        return next(
            (
                flow
                for flow in reversed(flows)
                if flow.get("policy", "").partition("[")[0] == policy
                and flow["source"]["address"].startswith(f"{source}:")
            ),
            None,
        )

    return dict(mesh.wait(f"a refusal by {policy} is reported", find))


def address(mesh: Mesh, namespace: str, pod: str) -> str:
    return mesh.kubectl("get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.podIP}").stdout


@pytest.mark.feature("F12")
def test_a_broken_policy_is_closed_and_stops_no_other(mesh: Mesh, pods: str) -> None:
    apply(mesh, pods, BAD, GOOD.format(namespace=pods))
    try:
        for policy in ("good", "bad"):
            wanted = "--for=condition=ambit.io/Acknowledged"
            mesh.kubectl("wait", wanted, f"authorizationpolicy/{policy}", "-n", pods, "--timeout=110s")
        told = condition(mesh, pods, "bad", "ZtunnelAccepted")
        assert told["status"] == "False"
        assert "AMB0212 spec.rules[0].from[0].source.ipBlocks[0]: '10.0.0/8'" in told["message"]
        assert condition(mesh, pods, "good", "ZtunnelAccepted")["status"] == "True"
        assert fetch(mesh, pods, "first") != "200", "the good one is enforced"
        assert fetch(mesh, pods, "first", client="second") == "200", "on those whom it names only"
        assert fetch(mesh, pods, "second") != "200", "what cannot be understood allows nothing"
        assert (
            denied(mesh, f"{pods}/good", address(mesh, pods, "client"))["destination"]["workload"] == "first"
        )
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "--all", "-n", pods)
    for server in ("first", "second"):
        mesh.wait(f"{server} answers again", lambda server=server: fetch(mesh, pods, server) == "200")


def test_strange_objects_stop_nothing(mesh: Mesh, pods: str) -> None:
    apply(mesh, pods, STRANGE)
    apply(mesh, pods, GOOD.format(namespace=pods))
    try:
        for policy in ("good", "strange-ports", "strange-sources", "strange-conditions"):
            told = condition(mesh, pods, policy, "ZtunnelAccepted")
            assert told["status"] == ("True" if policy == "good" else "False")
            wanted = "--for=condition=ambit.io/Acknowledged"
            mesh.kubectl("wait", wanted, f"authorizationpolicy/{policy}", "-n", pods, "--timeout=110s")
        assert fetch(mesh, pods, "first") != "200"
        assert fetch(mesh, pods, "second") == "200"
        mesh.wait("all are in sync", lambda: {proxy["sync"] for proxy in mesh.dump("ps")} == {"SYNCED"})
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "--all", "-n", pods)
        mesh.kubectl("delete", "service/strange", "endpointslice/strange", "-n", pods)
    mesh.wait("the server answers again", lambda: fetch(mesh, pods, "first") == "200")


@pytest.mark.feature("F11")
def test_strict_refuses_who_has_no_identity_and_says_so(mesh: Mesh, pods: str, outsider: str) -> None:
    host = f"first.{pods}"
    mesh.wait("PERMISSIVE is the default", lambda: fetch(mesh, outsider, host) == "200")
    apply(mesh, pods, STRICT)
    try:
        mesh.wait("the outsider is refused", lambda: fetch(mesh, outsider, host) != "200")
        assert fetch(mesh, pods, "first") == "200"
        flow = denied(mesh, "istio-system/istio_converted_static_strict", address(mesh, outsider, "client"))
        assert flow["destination"]["workload"] == "first"
        assert not flow["source"].get("identity")
        text = mesh.ambit("flows", "--denied", "--last", "1000", "--from", "client").stdout
        assert "DENIED by istio-system/istio_converted_static_strict" in text
    finally:
        mesh.kubectl("delete", "peerauthentication", "--all", "-n", pods)
    mesh.wait("the outsider is served again", lambda: fetch(mesh, outsider, host) == "200")


HTTP = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: http}
spec:
  selector: {matchLabels: {app: first}}
  rules: [{to: [{operation: {methods: [GET], paths: [/healthz]}}], when: [{key: "request.headers[x]", values: [one]}]}]
"""


@pytest.mark.feature("F13")
def test_a_rule_about_http_weakens_nothing_and_its_status_names_the_fields(mesh: Mesh, pods: str) -> None:
    apply(mesh, pods, HTTP)
    try:
        wanted = "--for=condition=ambit.io/Acknowledged"
        mesh.kubectl("wait", wanted, "authorizationpolicy/http", "-n", pods, "--timeout=110s")
        told = condition(mesh, pods, "http", "ZtunnelAccepted")
        assert (told["status"], told["reason"]) == ("True", "PartiallyInvalid")
        assert (
            "AMB0201 spec.rules[0]: nodes do not see methods, paths, request.headers[x];" in told["message"]
        )
        assert fetch(mesh, pods, "first") != "200", "an ALLOW policy whose rule cannot be told allows nothing"
        assert fetch(mesh, pods, "second") == "200"
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "--all", "-n", pods)
    mesh.wait("the server answers again", lambda: fetch(mesh, pods, "first") == "200")


TRIAL = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: trial, annotations: {istio.io/dry-run: "true"}}
spec:
  selector: {matchLabels: {app: first}}
  rules: [{from: [{source: {serviceAccounts: [second]}}]}]
"""


@pytest.mark.feature("N7")
def test_a_policy_in_dry_run_decides_nothing_and_says_what_it_would_have(
    mesh: Mesh, pods: str, outsider: str
) -> None:
    def would_deny(namespace: str, client: str) -> set[str]:
        """What the destination has told of dry runs since, of connections from this client to `first`."""
        assert fetch(mesh, namespace, f"first.{pods}", client) == "200"
        words = ("--from", f"{namespace}/{client}", "--to", f"{pods}/first", "--last", "1000", "-o", "json")
        flows = map(json.loads, mesh.ambit("flows", *words).stdout.splitlines())
        return {flow["dryRun"] for flow in flows if flow.get("dryRun")}

    trial = {f"{pods}/trial"}
    apply(mesh, pods, TRIAL)
    try:
        assert not would_deny(pods, "second")
        for namespace in (pods, outsider):
            mesh.wait(f"{namespace} is told of", lambda where=namespace: would_deny(where, "client") == trial)
        assert not would_deny(pods, "second"), "whom it would allow"
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "--all", "-n", pods)


OF_TRUST_DOMAINS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: first-domain}}
spec:
  selector: {{matchLabels: {{app: first}}}}
  action: DENY
  rules: [{{from: [{{source: {{trustDomains: [{domain}]}}}}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: second-domain}}
spec:
  selector: {{matchLabels: {{app: second}}}}
  action: DENY
  rules: [{{from: [{{source: {{principals: [{domain}/ns/{namespace}/sa/client]}}}}]}}]
"""


@pytest.mark.feature("N52")
def test_callers_are_known_by_their_trust_domain_and_by_what_means_the_same(
    mesh: Mesh, pods: str, outsider: str
) -> None:
    def served() -> tuple[bool, ...]:
        """`client`, and who is outside of the mesh, by both servers."""
        asked = ((pods, "first"), (pods, "second"), (outsider, f"first.{pods}"), (outsider, f"second.{pods}"))
        return tuple(fetch(mesh, *each) == "200" for each in asked)

    everybody, strangers = (True,) * 4, (False, False, True, True)
    try:
        apply(mesh, pods, OF_TRUST_DOMAINS.format(domain="cluster.local", namespace=pods))
        mesh.wait("policies on the mesh's trust domain", lambda: served() == strangers)
        assert fetch(mesh, pods, "second", client="first") == "200", (
            "another account of the same trust domain"
        )
        apply(mesh, pods, OF_TRUST_DOMAINS.format(domain="former.example", namespace=pods))
        mesh.wait("policies on another one", lambda: served() == everybody)
        with with_options(mesh, "--trust-domain-alias", "former.example"):
            mesh.wait("it means the same", lambda: served() == strangers)
        mesh.wait("it does not any more", lambda: served() == everybody)
    finally:
        mesh.kubectl("delete", "authorizationpolicy", "--all", "-n", pods)
    mesh.wait("nobody is refused", lambda: served() == everybody)
