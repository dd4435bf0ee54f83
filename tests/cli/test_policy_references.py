"""Names in policies that fit nothing are told, with what was probably meant."""

from typing import Any

import msgspec
import pytest

from ambit.cli.policy_references import Surroundings, unknown_references


def pod(namespace: str, *ports: int, **labels: str) -> dict[str, Any]:
    declared = [{"name": "http", "containerPort": port} for port in ports]
    return {
        "metadata": {"namespace": namespace, "name": "p", "labels": labels},
        "spec": {"containers": [{"name": "c", "ports": declared}]},
    }


def service(target: int | str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": target}]},
    }


AROUND = Surroundings(
    frozenset({"default", "shop", "istio-system"}),
    frozenset({"default/curl", "shop/web"}),
    frozenset({"cluster.local"}),
    [pod("shop", 8080, app="web"), pod("default", app="curl")],
    [service("http")],
)


def told(spec: dict[str, Any], namespace: str = "shop", around: Surroundings = AROUND) -> list[str]:
    policy = {
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": namespace, "name": "p"},
        "spec": spec,
    }
    return [
        line.removeprefix(f"AuthorizationPolicy {namespace}/p ")
        for line in unknown_references([policy], around)
    ]


def rule(part: str, field: str, value: str) -> dict[str, Any]:
    inner = "source" if part == "from" else "operation"
    return {"selector": {"matchLabels": {"app": "web"}}, "rules": [{part: [{inner: {field: [value]}}]}]}


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("principals", "cluster.local/ns/default/sa/curl", ""),
        ("principals", "cluster.local/ns/default/sa/*", ""),
        ("principals", "spiffe://cluster.local/ns/default/sa/crul", ""),
        (
            "principals",
            "cluster.local/ns/default/sa/crul",
            "no service account 'crul' in namespace default; is it 'curl'?",
        ),
        ("principals", "cluster.local/ns/defualt/sa/curl", "no namespace 'defualt'; is it 'default'?"),
        ("notPrincipals", "cluster.local/ns/elsewhere/sa/curl", "no namespace 'elsewhere'"),
        (
            "principals",
            "cluster.locl/ns/default/sa/curl",
            "no trust domain 'cluster.locl'; is it 'cluster.local'?",
        ),
        ("namespaces", "default", ""),
        ("namespaces", "def*", ""),
        ("notNamespaces", "shopp", "no namespace 'shopp'; is it 'shop'?"),
        ("serviceAccounts", "web", ""),
        ("serviceAccounts", "default/curl", ""),
        ("serviceAccounts", "curl", "no service account 'curl' in namespace shop"),
    ],
)
def test_callers(field: str, value: str, problem: str) -> None:
    path = f"spec.rules[0].from[0].source.{field}[0]: "
    assert told(rule("from", field, value)) == ([path + problem] if problem else [])


@pytest.mark.parametrize("target", ["http", 8080])
def test_the_port_of_a_service_is_told_with_the_pods(target: int | str) -> None:
    around = Surroundings(
        AROUND.namespaces, AROUND.accounts, AROUND.trust_domains, AROUND.pods, [service(target)]
    )
    assert told(rule("to", "ports", "80"), around=around) == [
        "spec.rules[0].to[0].operation.ports[0]: 80 is the port of Service shop/web; rules see the pod's, 8080"
    ]
    assert told(rule("to", "ports", "8080"), around=around) == []
    assert told(rule("to", "ports", "9090"), around=around) == [], "a port that nobody declares may be open"


def test_a_selector_that_fits_no_pod() -> None:
    selector = {"selector": {"matchLabels": {"app": "web"}}}
    assert told(selector) == []
    assert told(selector, "istio-system") == [], "the root namespace selects everywhere"
    assert told(selector, "default") == [
        "spec.selector: no pod in default has app=web; pods with these labels are in shop"
    ]
    assert told({"selector": {"matchLabels": {"app": "wbe"}}}) == [
        "spec.selector: no pod in shop has app=wbe"
    ]


def test_without_certificates_trust_domains_are_not_judged() -> None:
    around = Surroundings(AROUND.namespaces, AROUND.accounts, frozenset(), AROUND.pods, AROUND.services)
    assert told(rule("from", "principals", "other/ns/default/sa/curl"), around=around) == []


@pytest.mark.parametrize(
    ("spec", "foreign"),
    [
        ({"selector": {"matchLabels": {"app": "edge"}}}, True),
        ({"targetRefs": [{"kind": "Gateway", "name": "front"}]}, True),
        ({"targetRefs": [{"kind": "Gateway", "name": "way"}]}, False),
        ({"selector": {"matchLabels": {"app": "web"}}}, False),
        ({}, False),
    ],
)
def test_clients_of_gateways_may_be_of_other_trust_domains(spec: dict[str, Any], foreign: bool) -> None:
    name = "gateway.networking.k8s.io/gateway-name"
    of_edge = {"gateway.istio.io/managed": "istio.io-gateway-controller", name: "front", "app": "edge"}
    around = msgspec.structs.replace(
        AROUND, pods=[*AROUND.pods, pod("shop", **of_edge), pod("shop", **{name: "way"})]
    )
    rules = [{"from": [{"source": {"principals": ["partners.example/ns/a/sa/b"]}}]}]
    assert (told({**spec, "rules": rules}, around=around) == []) is foreign
    misspelt = [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/crul"]}}]}]
    assert told({**spec, "rules": misspelt}, around=around)
