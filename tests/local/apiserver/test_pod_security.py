"""Pod Security Standards: namespaces' labels decide which pods are stored, and what clients are warned of."""

from collections.abc import Mapping
from typing import Any

import pytest

from ambit.local.apiserver.pod_security import Policy, describe, violations
from tests.local.apiserver.conftest import Client

NAMESPACES = "/api/v1/namespaces"
PODS = "/api/v1/namespaces/team/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/team/deployments"
ENFORCE, WARN = "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn"
SAFE: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec_of(context: Mapping[str, Any] | None = None, /, **fields: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "image": "busybox"}
    if context:
        container["securityContext"] = dict(context)
    return {"containers": [container], **fields}


def pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def second(spec: dict[str, Any], **container: Any) -> dict[str, Any]:
    return {**spec, "containers": [*spec["containers"], {"name": "d", "image": "x", **container}]}


def with_container(**container: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "x", "securityContext": dict(SAFE), **container}]}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (spec_of(), ""),
        (spec_of(hostNetwork=True, hostIPC=True), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (
            spec_of({"privileged": True}),
            'privileged (container "c" must not set securityContext.privileged=true)',
        ),
        (
            second(spec_of({"privileged": True}), securityContext={"privileged": True}),
            'privileged (containers "c", "d" must not set securityContext.privileged=true)',
        ),
        (
            spec_of({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}),
            (
                'non-default capabilities (container "c" must not include "NET_ADMIN" in '
                "securityContext.capabilities.add)"
            ),
        ),
        (
            spec_of(volumes=[{"name": "v", "hostPath": {"path": "/"}}, {"name": "e", "emptyDir": {}}]),
            'hostPath volumes (volume "v")',
        ),
        (
            with_container(ports=[{"containerPort": 80, "hostPort": 80}]),
            'hostPort (container "c" uses hostPort 80)',
        ),
        (
            with_container(readinessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}),
            'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
        ),
        (
            spec_of({"procMount": "Unmasked"}),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec_of(securityContext={"seLinuxOptions": {"type": "t", "user": "u"}}),
            'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "t"; user may not be set)',
        ),
        (
            spec_of({"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            spec_of(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (pod must not set securityContext.appArmorProfile.type to "Unconfined")',
        ),
        (
            spec_of(securityContext={"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            spec_of(securityContext={"windowsOptions": {"hostProcess": True}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ],
)
def test_the_baseline(spec: dict[str, Any], said: str) -> None:
    assert describe(violations(Policy("baseline"), pod("p", spec))) == said
    assert violations(Policy(), pod("p", spec)) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (spec_of(SAFE), ""),
        (
            spec_of(),
            (
                'allowPrivilegeEscalation != false (container "c" must set '
                "securityContext.allowPrivilegeEscalation=false), "
                'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
                'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
                'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to '
                '"RuntimeDefault" or "Localhost")'
            ),
        ),
        (
            spec_of({**SAFE, "runAsUser": 0}),
            'runAsUser=0 (container "c" must not set runAsUser=0)',
        ),
        (
            spec_of(SAFE, securityContext={"runAsNonRoot": False}),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            spec_of(
                {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "Localhost"}},
            ),
            "",
        ),
        (
            spec_of({**SAFE, "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}),
            (
                'unrestricted capabilities (container "c" must not include "CHOWN" in '
                "securityContext.capabilities.add)"
            ),
        ),
        (
            spec_of(SAFE, volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
            'restricted volume types (volume "v" uses restricted volume type "hostPath")',
        ),
        (spec_of(SAFE, hostPID=True), "host namespaces (hostPID=true)"),
    ],
)
def test_the_restricted_level(spec: dict[str, Any], said: str) -> None:
    assert describe(violations(Policy("restricted"), pod("p", spec))) == said


def test_an_older_version_has_fewer_rules() -> None:
    bare = pod("p", spec_of({"allowPrivilegeEscalation": False}))
    assert [name for name, _ in violations(Policy("restricted", "v1.18"), bare)] == ["runAsNonRoot != true"]
    probed = pod("p", with_container(livenessProbe={"tcpSocket": {"host": "h", "port": 1}}))
    assert violations(Policy("baseline", "v1.33"), probed) == []


async def warned(client: Client, method: str, path: str, body: Any) -> tuple[int, Any, list[str]]:
    """Status, body and warnings of one request."""
    async with client.session.request(method, path, json=body) as response:
        return response.status, await response.json(), response.headers.getall("Warning", [])


async def make_namespace(client: Client, **labels: str) -> None:
    metadata = {
        "name": "team",
        "labels": {f"pod-security.kubernetes.io/{key}": labels[key] for key in labels},
    }
    await client.make(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def deployment(spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    settings = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": settings}


async def test_a_pod_that_violates_the_level_is_refused(client: Client) -> None:
    await make_namespace(client, enforce="restricted", warn="restricted")
    status, answer, _ = await warned(client, "POST", PODS, pod("p", spec_of({"privileged": True})))
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert answer["message"].startswith('pods "p" is forbidden: violates PodSecurity "restricted:latest": ')
    assert "privileged (container" in answer["message"]
    status, _, warnings = await warned(client, "POST", PODS, pod("q", spec_of(SAFE)))
    assert (status, warnings) == (201, [])
    change = {"metadata": {"labels": {"a": "b"}}}
    media = "application/merge-patch+json"
    assert (await client.call("PATCH", f"{PODS}/q", change, media=media))[0] == 200


async def test_what_makes_pods_is_stored_with_a_warning(client: Client) -> None:
    await make_namespace(client, enforce="restricted", warn="baseline")
    status, _, warnings = await warned(client, "POST", DEPLOYMENTS, deployment(spec_of(hostPID=True)))
    assert status == 201
    assert warnings == [
        r'299 - "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"'
    ]


async def test_pods_without_labels_of_the_namespace_are_as_they_were(client: Client) -> None:
    await make_namespace(client)
    status, _, warnings = await warned(client, "POST", PODS, pod("p", spec_of({"privileged": True})))
    assert (status, warnings) == (201, [])


async def test_pods_that_run_are_named_when_a_level_is_enforced(client: Client) -> None:
    await make_namespace(client)
    for name in ("a", "b"):
        await client.make(PODS, pod(name, spec_of(hostPID=True)))
    found = await client.get(f"{NAMESPACES}/team")
    found["metadata"]["labels"][ENFORCE] = "baseline"
    status, _, warnings = await warned(client, "PUT", f"{NAMESPACES}/team", found)
    assert status == 200
    assert [each.removeprefix("299 - ") for each in warnings] == [
        r'"existing pods in namespace \"team\" violate the new PodSecurity enforce level \"baseline:latest\""',
        '"a (and 1 other pod): host namespaces"',
    ]
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "x"}]
    status, answer = await client.call("PATCH", f"{PODS}/a", image, media="application/json-patch+json")
    assert (status, answer["reason"]) == (403, "Forbidden")


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        (ENFORCE, "strict", "must be one of privileged, baseline, restricted"),
        (f"{WARN}-version", "1.30", 'must be "latest" or "v1.x"'),
    ],
)
async def test_a_label_with_another_value_is_refused(
    client: Client, label: str, value: str, said: str
) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {label: value}}}
    status, answer = await client.call("POST", NAMESPACES, body)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert f'metadata.labels[{label}]: Invalid value: "{value}": {said}' in answer["message"]
