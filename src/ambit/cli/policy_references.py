"""Names in policies that fit nothing in the cluster: most denials that nobody meant begin with one. Pure.

Rules:
1. Only what can be said for certain counts: values with wildcards, and trust domains when none is known, are left out.
2. Ports of rules are those of pods: a number that only a Service has is named with the pod's port.
3. A selector that fits no pod is told with the namespace where it would fit.
4. Clients of gateways at the edge may have certificates of trust domains that nobody here knows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from ambit.core.identity import Identity
from ambit.core.names import GATEWAY_NAME_LABEL, MANAGED_GATEWAY, MANAGED_LABEL, ROOT_NAMESPACE

Object = Mapping[str, Any]


class Surroundings(msgspec.Struct, frozen=True):
    """What policies can name. `accounts` are `namespace/name`; `trust_domains` are those of certificates in use."""

    namespaces: frozenset[str]
    accounts: frozenset[str]
    trust_domains: frozenset[str]
    pods: Sequence[Object]
    services: Sequence[Object]
    root_namespace: str = ROOT_NAMESPACE


def unknown_references(policies: Iterable[Object], around: Surroundings) -> Iterator[str]:
    """One sentence for each name in AuthorizationPolicies and PeerAuthentications that fits nothing."""
    for policy in policies:
        metadata, spec = policy["metadata"], policy.get("spec") or {}
        title = f"{policy['kind']} {metadata['namespace']}/{metadata['name']}"
        labels = (spec.get("selector") or {}).get("matchLabels") or {}
        pods = selected(labels, metadata["namespace"], around)
        enforcing = _enforcing(spec, metadata["namespace"], pods, around)
        of_clients = bool(enforcing) and all(map(is_edge, enforcing))
        if labels and not pods:
            yield f"{title} spec.selector: {_fits_nothing(labels, metadata['namespace'], around)}"
        for path, field, value in _values(spec):
            if of_clients and field == "principals" and value.partition("/")[0] not in around.trust_domains:
                continue
            if "*" not in value:
                problem = _problem(field, value, metadata["namespace"], pods, around)
                if problem:
                    yield f"{title} {path}: {problem}"


def is_edge(pod: Object) -> bool:
    """Whether it is one of a gateway at the edge."""
    return _has(pod, MANAGED_LABEL, MANAGED_GATEWAY)


def _enforcing(
    spec: Object, namespace: str, selected_pods: Sequence[Object], around: Surroundings
) -> Sequence[Object]:
    """The pods of the Gateways that a policy names, or those that it selects."""
    targets = [*(spec.get("targetRefs") or ()), *([spec["targetRef"]] if spec.get("targetRef") else ())]
    if not targets:
        return selected_pods
    names = {each.get("name") for each in targets if each.get("kind") == "Gateway"}
    return [
        pod
        for pod in around.pods
        if pod["metadata"]["namespace"] == namespace
        and (pod["metadata"].get("labels") or {}).get(GATEWAY_NAME_LABEL) in names
    ]


def _values(spec: Object) -> Iterator[tuple[str, str, str]]:
    """(path, field without `not`, value) of what is looked at."""
    for index, rule in enumerate(spec.get("rules") or ()):
        for part, inner in (("from", "source"), ("to", "operation")):
            for place, entry in enumerate(rule.get(part) or ()):
                for field, values in (entry.get(inner) or {}).items():
                    for position, value in enumerate(values if isinstance(values, list) else ()):
                        path = f"spec.rules[{index}].{part}[{place}].{inner}.{field}[{position}]"
                        yield path, field.removeprefix("not").lower(), str(value)


def _problem(field: str, value: str, namespace: str, pods: Sequence[Object], around: Surroundings) -> str:
    match field:
        case "principals":
            try:
                identity = Identity.parse(f"spiffe://{value}")
            except ValueError:
                return ""  # a finding of the compiler says it
            if around.trust_domains and identity.trust_domain not in around.trust_domains:
                return f"no trust domain {identity.trust_domain!r}{_guess(identity.trust_domain, around.trust_domains)}"
            return _account(identity.namespace, identity.service_account, around)
        case "serviceaccounts":
            head, slash, name = value.rpartition("/")
            return _account(head if slash else namespace, name, around)
        case "namespaces" if value not in around.namespaces:
            return f"no namespace {value!r}{_guess(value, around.namespaces)}"
        case "ports":
            return _port(value, pods, around)
        case _:
            return ""


def _account(namespace: str, name: str, around: Surroundings) -> str:
    if namespace not in around.namespaces:
        return f"no namespace {namespace!r}{_guess(namespace, around.namespaces)}"
    if f"{namespace}/{name}" in around.accounts:
        return ""
    there = {account.partition("/")[2] for account in around.accounts if account.startswith(f"{namespace}/")}
    return f"no service account {name!r} in namespace {namespace}{_guess(name, there)}"


def _port(value: str, pods: Sequence[Object], around: Surroundings) -> str:
    """Services that send `value` to another port of the policy's pods, when no pod has that port itself."""
    targets: dict[str, set[str]] = {}
    for pod in pods:
        declared = {str(port.get("name")): str(port["containerPort"]) for port in _container_ports(pod)}
        if value in declared.values():
            return ""
        for service in around.services:
            selector = (service.get("spec") or {}).get("selector") or {}
            if service["metadata"]["namespace"] != pod["metadata"]["namespace"] or not _fits(selector, pod):
                continue
            name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
            for port in service["spec"].get("ports") or ():
                target = str(port.get("targetPort", port["port"]))
                target = declared.get(target, target)
                if target == value:
                    return ""
                if str(port["port"]) == value:
                    targets.setdefault(name, set()).add(target)
    return "; ".join(
        f"{value} is the port of Service {name}; rules see the pod's, {' or '.join(sorted(ports))}"
        for name, ports in sorted(targets.items())
    )


def _container_ports(pod: Object) -> Iterator[Object]:
    for container in pod["spec"].get("containers") or ():
        yield from container.get("ports") or ()


def selected(labels: Object, namespace: str, around: Surroundings) -> list[Object]:
    """The pods that a policy of `namespace` with these labels in its selector holds for."""
    everywhere = namespace == around.root_namespace
    return [
        pod
        for pod in around.pods
        if (everywhere or pod["metadata"]["namespace"] == namespace)
        and all(_has(pod, *each) for each in labels.items())
    ]


def _fits_nothing(labels: Object, namespace: str, around: Surroundings) -> str:
    wanted = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
    elsewhere = sorted({pod["metadata"]["namespace"] for pod in around.pods if _fits(labels, pod)})
    there = f"; pods with these labels are in {', '.join(elsewhere)}" if elsewhere else ""
    return f"no pod in {'any namespace' if namespace == around.root_namespace else namespace} has {wanted}{there}"


def _fits(labels: Object, pod: Object) -> bool:
    """An empty selector fits none here: of a Service it means that endpoints are made by hand."""
    return bool(labels) and all(_has(pod, *each) for each in labels.items())


def _has(pod: Object, name: str, value: object) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get(name) == value)


def _guess(value: str, known: Iterable[str]) -> str:
    close = get_close_matches(value, sorted(known), 1)
    return f"; is it {close[0]!r}?" if close else ""
