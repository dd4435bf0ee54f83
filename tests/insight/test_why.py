"""Why a connection is allowed or denied, from configuration alone."""

from typing import Any

import pytest
import yaml

from ambit.core.errors import BadInput
from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import Compiled, compile_objects
from ambit.insight.why import NOBODY, NOT_CAPTURED, Answer, why

CAPTURED = {"ambient.istio.io/redirection": "enabled"}


def pod(name: str, address: str, *, captured: bool = True, ready: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name.partition("-")[0]}}
        | ({"annotations": CAPTURED} if captured else {})
        | more,
        "spec": {"nodeName": "node1", "serviceAccountName": name.partition("-")[0]},
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.7, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow}
spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {serviceAccounts: [client]}}]}]}
"""
DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["8080"]}}]}]}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
"""
PODS = [
    pod("web-1", "10.244.1.2"),
    pod("client", "10.244.1.3"),
    pod("other", "10.244.1.4"),
    pod("stranger", "10.244.1.5", captured=False),
]


def mesh(*texts: str, more: tuple[dict[str, Any], ...] = ()) -> Compiled:
    objects = [*PODS, *more, *map(yaml.safe_load, (SERVICE, *texts))]
    return compile_objects((("test", each) for each in objects), MeshSettings())


def asked(source: str, destination: str, *texts: str) -> Answer:
    return why(source, destination, mesh(*texts))


def test_the_rule_that_allows_and_what_would_be_without_it() -> None:
    (ruling,) = (answer := asked("client", "web:80", ALLOW)).rulings
    assert (answer.verdict, ruling.rule, ruling.pod, ruling.port) == (
        "allowed",
        "default/allow[0]",
        "default/web-1",
        8080,
    )
    assert ruling.identity == "spiffe://cluster.local/ns/default/sa/client"
    assert ruling.without == "denied, no allow rule matches" and ruling.nearest is None


def test_the_nearest_rule_that_would_have_allowed_and_what_it_lacks() -> None:
    (ruling,) = (answer := asked("other", "web:80", ALLOW)).rulings
    assert (answer.verdict, ruling.rule) == ("denied", "default/allow")
    assert ruling.nearest is not None and ruling.nearest.rule == "default/allow[0]"
    (miss,) = ruling.nearest.misses
    assert (miss.field, miss.wanted, miss.actual) == ("serviceAccounts", ("default/client",), "default/other")


def test_deny_goes_before_allow_and_is_nearest_to_what_is_allowed() -> None:
    (ruling,) = asked("client", "web:80", ALLOW, DENY).rulings
    assert (ruling.verdict, ruling.rule) == ("denied", "default/deny[0]")
    assert ruling.without == "allowed by default/allow[0]"
    assert ruling.nearest is not None and ruling.nearest.misses == ()
    (ruling,) = asked("client", "web-1:9090", ALLOW, DENY).rulings
    assert ruling.verdict == "allowed" and ruling.nearest is not None
    assert (ruling.nearest.rule, ruling.nearest.misses[0].field) == ("default/deny[0]", "ports")


def test_plain_text_has_no_identity_and_strict_denies_it() -> None:
    (ruling,) = asked("stranger", "web:80").rulings
    assert (ruling.verdict, ruling.identity) == ("allowed", "")
    (ruling,) = asked("stranger", "web:80", STRICT).rulings
    assert ruling.rule == "istio-system/istio_converted_static_strict[0]"
    assert asked("client", "web:80", STRICT).verdict == "allowed"
    assert asked("10.9.9.9", "web:80", STRICT).verdict == "denied"


def test_dry_run_is_told_beside() -> None:
    trial = DENY.replace("name: deny", 'name: deny, annotations: {istio.io/dry-run: "true"}')
    (ruling,) = (answer := asked("client", "web:80", ALLOW, trial)).rulings
    assert (answer.verdict, ruling.dry_run) == ("allowed", "denied by default/deny[0]")
    assert any("AMB0204" in finding for finding in answer.findings)


def test_nothing_decides_where_the_destination_is_not_in_the_mesh() -> None:
    (ruling,) = asked("client", "stranger:8080", STRICT).rulings
    assert (ruling.verdict, ruling.reason, ruling.rule) == ("allowed", NOT_CAPTURED, "")
    assert asked("client", "192.0.2.1:443").rulings[0].reason == NOBODY


SHADOW = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shadow, namespace: aaa}
spec: {address: 10.244.1.2}
"""
THIEF = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: thief, namespace: aaa}
spec:
  hosts: [web.default, web.default.svc.cluster.local]
  addresses: [10.244.1.2, 10.96.0.7, 10.244.0.0/16]
  ports: [{number: 8080, name: tcp}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.66}]
"""


@pytest.mark.parametrize("more", [(SHADOW,), (THIEF,), (SHADOW, THIEF)])
@pytest.mark.parametrize(
    "destination", ["10.244.1.2:8080", "web-1:8080", "web:80", "10.96.0.7:80", "web.default:80"]
)
def test_nobody_elses_objects_change_the_answer(more: tuple[str, ...], destination: str) -> None:
    (alone,) = asked("other", destination, ALLOW).rulings
    assert (alone.verdict, alone.pod) == ("denied", "default/web-1")
    assert asked("other", destination, ALLOW, *more).rulings == (alone,)
    (source,) = asked("10.244.1.3", destination, ALLOW, *more).rulings
    assert source.identity == "spiffe://cluster.local/ns/default/sa/client"


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("web:8080", "the service has no port 8080 of TCP; it has: 80"),
        ("web-1:15008", "port 15008 belongs to the mesh"),
        ("idle:80", "the service has no healthy endpoint for port 80"),
    ],
)
def test_what_comes_to_no_pod_is_refused(destination: str, reason: str) -> None:
    idle = SERVICE.replace("name: web", "name: idle").replace("app: web", "app: idle").replace("0.7", "0.8")
    answer = asked("client", destination, idle)
    assert (answer.verdict, answer.rulings[0].reason) == ("refused", reason)


def test_endpoints_may_differ() -> None:
    second = pod("web-2", "10.244.1.9", captured=False)
    answer = why("other", "web:80", mesh(ALLOW, more=(second, pod("web-3", "10.244.1.8", ready=False))))
    assert answer.verdict == "mixed"
    assert {each.pod: each.verdict for each in answer.rulings} == {
        "default/web-1": "denied",
        "default/web-2": "allowed",
    }


@pytest.mark.parametrize(
    "name",
    ["web", "default/web", "web.default", "web.default.svc", "web.default.svc.cluster.local.", "10.96.0.7"],
)
def test_names_of_a_service(name: str) -> None:
    assert asked("10.244.1.3", f"{name}:80", ALLOW).destination == "service default/web:80"


def test_names_of_pods_and_of_what_owns_them() -> None:
    owned = pod(
        "batch-7d4b9-x1", "10.244.1.7",
        ownerReferences=[{"kind": "ReplicaSet", "name": "batch-7d4b9", "controller": True}],
    )  # fmt: skip
    owned["metadata"]["labels"]["pod-template-hash"] = "7d4b9"
    compiled = mesh(more=(owned,))
    assert why("default/batch", "10.244.1.2:8080", compiled, "elsewhere").source == "default/batch-7d4b9-x1"
    assert why("client", "batch:1", compiled).destination == "pod default/batch-7d4b9-x1:1"


def test_kubectls_form_of_names() -> None:
    assert why("pod/client", "svc/web:80", mesh()) == asked("client", "web:80")
    assert asked("client", "pod/web-1:8080").destination == "pod default/web-1:8080"
    with pytest.raises(BadInput, match="no service default/client"):
        asked("client", "svc/client:80")
    with pytest.raises(BadInput, match="no pod default/nobody"):
        asked("deployment.apps/nobody", "web:80")
    with pytest.raises(BadInput, match="no pod default/web") as problem:
        asked("client", "pod/web:80")
    assert problem.value.hint == "there is a service of that name: default/web:80"


def test_names_of_pods_as_tables_print_them() -> None:
    assert asked("client.default", "web:80") == asked("client", "web:80")
    assert asked("client.default", "web-1.default:8080").destination == "pod default/web-1:8080"
    with pytest.raises(BadInput, match=r"no pod default/client\.elsewhere"):
        asked("client.elsewhere", "web:80")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("cleint", "did you mean default/client?"),
        ("elsewhere/client", "did you mean default/client?"),
        ("q", "names are NAME, with -n, or NAMESPACE/NAME; of a pod also what owns it, as deploy/NAME"),
    ],
)
def test_only_names_that_are_like_it_are_suggested(source: str, hint: str) -> None:
    with pytest.raises(BadInput) as problem:
        asked(source, "web:80")
    assert problem.value.hint == hint


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        ("cleint", "web:80", "no pod default/cleint"),
        ("client", "wbe:80", "no service or pod default/wbe"),
        ("client", "web", "is no destination"),
        ("client", "web:http", "is no destination"),
        ("client", "web:0", "is no destination"),
        ("client", "web:65536", "is no destination"),
        ("client", "[::1]", "is no destination"),
    ],
)
def test_mistakes_are_named_with_a_way_on(source: str, destination: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as problem:
        asked(source, destination)
    assert problem.value.hint


def test_a_misspelt_field_is_a_finding_of_the_policy() -> None:
    answer = asked("client", "other:80", ALLOW.replace("selector", "selectr"))
    where = "AMB0003 [error] AuthorizationPolicy default/allow at spec.selectr"
    assert answer.findings == (f"{where}: there is no such field, it is left out; did you mean selector?",)


def test_findings_of_the_policies_that_apply_are_told() -> None:
    http = ALLOW.replace("serviceAccounts: [client]", "requestPrincipals: [client]")
    answer = asked("client", "web:80", http)
    assert answer.verdict == "denied" and "AMB0201" in answer.findings[0]
    assert asked("client", "other:80", http).findings == ()


def test_a_service_that_prefers_endpoints_nearby_is_asked_from_where_the_client_is() -> None:
    service = yaml.safe_load(SERVICE)
    service["spec"]["trafficDistribution"] = "PreferClose"
    places = {"near-1": "north.one", "client-1": "north.one", "far-1": "north.two"}
    objects = [service]
    for number, (name, place) in enumerate(places.items()):
        made = pod(name, f"10.244.1.{number + 2}")
        app = "client" if name == "client-1" else "web"
        made["metadata"]["labels"] = {"app": app, "topology.istio.io/locality": place}
        objects.append(made)
    compiled = compile_objects((("test", each) for each in objects), MeshSettings())
    assert [each.pod for each in why("client-1", "web:80", compiled).rulings] == ["default/near-1"]


def test_of_a_service_with_affinity_the_clients_own_endpoint_is_told() -> None:
    service = yaml.safe_load(SERVICE)
    service["spec"]["sessionAffinity"] = "ClientIP"
    servers = [pod(f"web-{number}", f"10.244.1.1{number}") for number in range(9)]
    clients = {f"client-{number}": pod(f"client-{number}", f"10.244.2.{number + 1}") for number in range(9)}
    objects = [service, *servers, *clients.values()]
    compiled = compile_objects((("test", each) for each in objects), MeshSettings())
    told = {client: why(client, "web:80", compiled).rulings for client in clients}
    assert {len(rulings) for rulings in told.values()} == {1}
    assert len({ruling.pod for (ruling,) in told.values()}) > 1
