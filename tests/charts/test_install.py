"""`ambit install`, upgrade and `ambit uninstall` with the real Helm, against our own API server (no pod ever runs)."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ambit.cli.helm import umbrella_chart
from ambit.cli.kinds import CHANNEL, experimental_kinds
from ambit.kube.client import Client
from ambit.kube.resource import (
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    PODS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.testing.mesh import BRIEFLY
from tests.charts.helm_program import needed_helm
from tests.control.test_process import eventually

POLICIES = "authorizationpolicies.security.istio.io"
GATEWAYS = "gateways.gateway.networking.k8s.io"
TLS = "backendtlspolicies.gateway.networking.k8s.io"
ROUTES = "httproutes.gateway.networking.k8s.io"


class Installer:
    """Runs `ambit` for one cluster."""

    def __init__(self, kubeconfig: Path, client: Client) -> None:
        self.kubeconfig, self.client = kubeconfig, client

    async def ambit(self, *words: str, **environment: str) -> tuple[int, str]:
        """Exit code, and what it said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ambit", *words,
            env={**os.environ, **BRIEFLY, "KUBECONFIG": str(self.kubeconfig), **environment},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    async def done(self, *words: str) -> str:
        code, said = await self.ambit(*words, HELM=needed_helm())
        assert code == 0, said
        return said

    async def names(self, kind: Any, namespace: str | None = None) -> set[str]:
        return {each["metadata"]["name"] for each in await self.client.list(kind, namespace)}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Installer]:
    """As empty as a new Kubernetes cluster."""
    server = ApiServer(ApiSettings(tmp_path / "pki", bundles=()), None)
    listener = socket.create_server(("127.0.0.1", 0))
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, server.credentials, f"https://127.0.0.1:{listener.getsockname()[1]}")
    await server.start([listener], tmp_path / "api.sock")
    async with Client.over_unix(tmp_path / "api.sock") as client:
        yield Installer(kubeconfig, client)
    await server.stop()


async def test_a_cluster_is_checked_and_a_foreign_mesh_refused(cluster: Installer) -> None:
    code, said = await cluster.ambit("check", "--pre", "-o", "json")
    assert code == 0, said
    foreign = {
        "metadata": {"name": "ztunnel", "namespace": "istio-system", "labels": {"app": "ztunnel"}},
        "spec": {
            "selector": {"matchLabels": {"app": "ztunnel"}},
            "template": {
                "metadata": {"labels": {"app": "ztunnel"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    await cluster.client.create(NAMESPACES, {"metadata": {"name": "istio-system"}})
    await cluster.client.create(DAEMON_SETS, foreign)
    code, said = await cluster.ambit("check", "--pre")
    assert code == 1 and "DaemonSet istio-system/ztunnel belongs to another mesh" in said
    code, said = await cluster.ambit("install", "--no-wait", HELM=needed_helm())
    assert code == 1 and "error: the mesh was not installed" in said
    assert "ambit-system" not in await cluster.names(NAMESPACES)


async def test_without_helm_it_says_so_and_changes_nothing(cluster: Installer) -> None:
    code, said = await cluster.ambit("install", HELM="/nowhere/helm")
    assert code == 1 and "error: /nowhere/helm was not found" in said and "hint: install Helm 3" in said
    assert "ambit-system" not in await cluster.names(NAMESPACES)


async def test_variables_of_helm_lead_to_no_other_cluster(cluster: Installer) -> None:
    elsewhere = {
        "HELM_KUBECONTEXT": "another",
        "HELM_KUBEAPISERVER": "https://192.0.2.1",
        "HELM_KUBEASUSER": "nobody",
    }
    code, said = await cluster.ambit("install", "--no-wait", HELM=needed_helm(), **elsewhere)
    assert code == 0, said
    assert await cluster.names(DAEMON_SETS) == {"ambit-node"}


async def test_without_a_kubeconfig_it_says_so(cluster: Installer, tmp_path: Path) -> None:
    code, said = await cluster.ambit("install", KUBECONFIG=str(tmp_path / "none"), HELM=needed_helm())
    assert code == 2 and f"error: there is no kubeconfig {tmp_path / 'none'}" in said


@pytest.mark.feature("F69")
async def test_install_upgrade_and_uninstall_to_zero(cluster: Installer) -> None:
    client = cluster.client
    before = {
        kind: await cluster.names(kind) for kind in (NAMESPACES, CLUSTER_ROLES, CUSTOM_RESOURCE_DEFINITIONS)
    }

    await cluster.done("install", "--no-wait", "--set", "control.replicaCount=2")
    assert await cluster.names(DAEMON_SETS) == {"ambit-node"}
    namespace = await client.get(NAMESPACES, "ambit-system")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert {POLICIES, GATEWAYS} <= await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)
    assert (await client.get(DEPLOYMENTS, "ambit-control", "ambit-system"))["spec"]["replicas"] == 2

    await cluster.done("install", "--no-wait", "--set", "global.tag=next")
    upgraded = await client.get(DEPLOYMENTS, "ambit-control", "ambit-system")
    assert upgraded["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/ambit:next"
    assert upgraded["spec"]["replicas"] == 1
    assert {POLICIES, GATEWAYS} <= await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)

    root = {"metadata": {"name": "istio-ca-root-cert"}, "data": {"root-cert.pem": "ours"}}
    await client.create(CONFIG_MAPS, root, "ambit-system")
    await client.create(CONFIG_MAPS, root, "default")
    await client.create(CONFIG_MAPS, {**root, "data": {"root-cert.pem": "another's"}}, "kube-public")

    await cluster.done("uninstall")
    assert {POLICIES, GATEWAYS} <= await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)
    for kind in (DAEMON_SETS, DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS, ROLES, SECRETS):
        assert not {name for name in await cluster.names(kind, "ambit-system") if name != "default"}, kind
    assert await cluster.names(CLUSTER_ROLES) == before[CLUSTER_ROLES]
    assert await cluster.names(CONFIG_MAPS, "default") == set()
    assert await cluster.names(CONFIG_MAPS, "kube-public") == {"istio-ca-root-cert"}
    assert "deletionTimestamp" in (await client.get(NAMESPACES, "ambit-system"))["metadata"]

    code, said = await cluster.ambit("uninstall", HELM=needed_helm())
    assert code == 1 and "the mesh is not installed in this cluster" in said
    assert before[NAMESPACES] <= await cluster.names(NAMESPACES)


async def test_helm_4_uninstalls(cluster: Installer, tmp_path: Path) -> None:
    """A Helm without the options that Helm 4 has no longer; `HELM=/path/to/helm4` runs all tests with a real one."""
    helm = tmp_path / "helm"
    helm.write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in -a|--all) '
        "echo \"Error: unknown shorthand flag: 'a' in -a\" >&2; exit 1;; esac; done\n"
        f'exec {needed_helm()} "$@"\n'
    )
    helm.chmod(0o755)
    code, said = await cluster.ambit("install", "--no-wait", HELM=str(helm))
    assert code == 0, said
    code, said = await cluster.ambit("uninstall", HELM=str(helm))
    assert code == 0, said
    assert await cluster.names(DAEMON_SETS) == set()


async def test_an_uninstallation_that_was_broken_off_goes_on(cluster: Installer) -> None:
    client = cluster.client
    kinds = await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)
    await cluster.done("install", "--no-wait")
    root = {"metadata": {"name": "istio-ca-root-cert"}, "data": {"root-cert.pem": "ours"}}
    for namespace in ("ambit-system", "default"):
        await client.create(CONFIG_MAPS, root, namespace)
    helm = ["uninstall", "ambit", "-n", "ambit-system", "--kubeconfig", str(cluster.kubeconfig)]
    process = await asyncio.create_subprocess_exec(needed_helm(), *helm, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0

    await cluster.done("uninstall")
    assert await cluster.names(CONFIG_MAPS, "default") == set()
    assert "deletionTimestamp" in (await client.get(NAMESPACES, "ambit-system"))["metadata"]
    assert POLICIES in await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)
    code, said = await cluster.ambit("uninstall", HELM=needed_helm())
    assert code == 1 and "the mesh is not installed in this cluster" in said

    await cluster.done("uninstall", "--purge")

    async def remaining() -> set[str]:
        return await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)

    await eventually(remaining, lambda found: found == kinds)


async def test_a_dry_run_prints_everything_and_changes_nothing(cluster: Installer) -> None:
    said = await cluster.done("install", "--dry-run", "--set", "control.replicaCount=2")
    kinds = set(re.findall(r"^kind: (\w+)$", said, re.MULTILINE))
    assert kinds >= {"DaemonSet", "Deployment", "PodDisruptionBudget", "ValidatingAdmissionPolicy"}
    assert "ambit-system" not in await cluster.names(NAMESPACES)


@pytest.mark.feature("F69")
async def test_helm_alone_upgrades_and_keeps_values(cluster: Installer) -> None:
    await cluster.done(
        "install", "--no-wait", "--set", "control.replicaCount=2,node.cni.systemNamespaces={a,b}"
    )
    with umbrella_chart() as chart:
        process = await asyncio.create_subprocess_exec(
            needed_helm(), "upgrade", "ambit", str(chart), "-n", "ambit-system", "--reuse-values",
            "--set", "global.tag=7", "--kubeconfig", str(cluster.kubeconfig),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    deployment = await cluster.client.get(DEPLOYMENTS, "ambit-control", "ambit-system")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/ambit:7"
    daemon_set = await cluster.client.get(DAEMON_SETS, "ambit-node", "ambit-system")
    words = daemon_set["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--cni-system-namespace"] == ["a", "b"]


async def test_a_namespace_of_somebody_else_stays(cluster: Installer) -> None:
    client = cluster.client
    await client.create(NAMESPACES, {"metadata": {"name": "ambit-system", "labels": {"owner": "somebody"}}})
    await client.create(SECRETS, {"metadata": {"name": "cacerts"}}, "ambit-system")
    other = {
        "metadata": {"name": "theirs"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    await client.create(DEPLOYMENTS, other, "ambit-system")
    await cluster.done("install", "--no-wait")
    await cluster.done("install", "--no-wait", "--set-string", "node.nodeSelector.mesh=true")
    selector = (await client.get(DAEMON_SETS, "ambit-node", "ambit-system"))["spec"]["template"]["spec"][
        "nodeSelector"
    ]
    assert selector == {"kubernetes.io/os": "linux", "mesh": "true"}
    labels = (await client.get(NAMESPACES, "ambit-system"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    written = (
        (SECRETS, "istio-ca-secret"),
        (SECRETS, "ambit-ca"),
        (LEASES, "ambit-control"),
        (CONFIG_MAPS, "ambit-acknowledgements"),
    )
    for kind, name in written:
        await client.create(kind, {"metadata": {"name": name}}, "ambit-system")

    await cluster.done("uninstall")
    assert "deletionTimestamp" not in (await client.get(NAMESPACES, "ambit-system"))["metadata"]
    assert await cluster.names(SECRETS, "ambit-system") == {"cacerts"}
    assert await cluster.names(LEASES, "ambit-system") == set()
    assert "ambit-acknowledgements" not in await cluster.names(CONFIG_MAPS, "ambit-system")
    assert await cluster.names(DEPLOYMENTS, "ambit-system") == {"theirs"}


async def test_purge_takes_what_the_installation_made_and_nothing_else(cluster: Installer) -> None:
    client = cluster.client
    theirs = {
        "metadata": {"name": GATEWAYS, "labels": {"owner": "somebody"}},
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": {
                "kind": "Gateway",
                "listKind": "GatewayList",
                "plural": "gateways",
                "singular": "gateway",
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }
    theirs["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://example.org"}  # type: ignore[index]
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, theirs)
    await cluster.done("install", "--no-wait")
    assert (await client.get(CUSTOM_RESOURCE_DEFINITIONS, GATEWAYS))["metadata"]["labels"] == {
        "owner": "somebody"
    }
    await cluster.done("uninstall", "--purge")

    async def remaining() -> set[str]:
        return await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)

    await eventually(remaining, lambda found: found == {GATEWAYS})
    assert "deletionTimestamp" in (await client.get(NAMESPACES, "istio-system"))["metadata"]


async def channels(cluster: Installer) -> dict[str, str]:
    """Of the Gateway API's kinds."""
    found = [each["metadata"] for each in await cluster.client.list(CUSTOM_RESOURCE_DEFINITIONS)]
    return {
        each["name"]: each["annotations"][CHANNEL] for each in found if "gateway.networking" in each["name"]
    }


async def test_the_channel_of_the_gateway_api_is_the_standard_one_or_as_asked(cluster: Installer) -> None:
    before = await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)
    await cluster.done("install", "--no-wait")
    standard = await channels(cluster)
    assert standard[ROUTES] == "standard" and set(standard.values()) == {"standard"}
    assert not await has_retries(cluster)
    said = await cluster.done("install", "--dry-run", "--gateway-api", "experimental")
    assert said.count(f'"{CHANNEL}":"experimental"') == len(experimental_kinds())
    assert f'"{CHANNEL}":"standard"' not in said
    assert await channels(cluster) == standard

    for again in (("--gateway-api", "experimental"), ()):
        await cluster.done("install", "--no-wait", *again)
        experimental = await channels(cluster)
        assert experimental.keys() > standard.keys() and set(experimental.values()) == {"experimental"}
        assert await has_retries(cluster)
        labels = (await cluster.client.get(CUSTOM_RESOURCE_DEFINITIONS, TLS))["metadata"]["labels"]
        assert labels["gateway.networking.k8s.io/policy"] == "Direct", "their own labels stay"
    await cluster.done("uninstall")
    assert await channels(cluster) == experimental
    await cluster.done("uninstall", "--purge")

    async def remaining() -> set[str]:
        return await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)

    await eventually(remaining, lambda found: found == before)


async def has_retries(cluster: Installer) -> bool:
    """Whether rules of HTTPRoutes have the field `retry`."""
    kind = await cluster.client.get(CUSTOM_RESOURCE_DEFINITIONS, ROUTES)
    version = next(each for each in kind["spec"]["versions"] if each["storage"])
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return "retry" in spec["properties"]["rules"]["items"]["properties"]


async def test_kinds_of_somebody_else_keep_their_channel(cluster: Installer) -> None:
    client = cluster.client
    theirs = next(each for each in experimental_kinds() if each["metadata"]["name"] == ROUTES)
    theirs["metadata"] = {**theirs["metadata"], "labels": {"owner": "somebody"}}
    annotations = theirs["metadata"]["annotations"] | {CHANNEL: "standard"}
    theirs["metadata"]["annotations"] = annotations
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, theirs)
    words = ("install", "--no-wait", "--gateway-api", "experimental")
    code, said = await cluster.ambit(*words, HELM=needed_helm())
    assert (
        code == 1
        and f"error: not of the experimental channel, and not of this installation: {ROUTES}" in said
    )
    assert "hint: bring them to the experimental channel" in said
    assert GATEWAYS not in await cluster.names(CUSTOM_RESOURCE_DEFINITIONS)

    change = {"metadata": {"annotations": {CHANNEL: "experimental", "note": "mine"}}}
    await client.patch(CUSTOM_RESOURCE_DEFINITIONS, ROUTES, change)
    await cluster.done(*words)
    assert set((await channels(cluster)).values()) == {"experimental"}
    metadata = (await client.get(CUSTOM_RESOURCE_DEFINITIONS, ROUTES))["metadata"]
    assert metadata["labels"] == {"owner": "somebody"} and metadata["annotations"]["note"] == "mine"
    await cluster.done("uninstall", "--purge")

    async def remaining() -> set[str]:
        return {name for name in await cluster.names(CUSTOM_RESOURCE_DEFINITIONS) if "gateway" in name}

    await eventually(remaining, lambda found: found == {ROUTES})


async def test_captured_pods_are_not_cut_off(cluster: Installer) -> None:
    client = cluster.client
    await cluster.done("install", "--no-wait")
    await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")
    pod = {
        "metadata": {"name": "web", "annotations": {"ambient.istio.io/redirection": "enabled"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await client.create(PODS, pod, "default")
    code, said = await cluster.ambit("uninstall", HELM=needed_helm())
    assert code == 1 and "1 pod in default is captured" in said
    assert "kubectl label namespace default istio.io/dataplane-mode-" in said
    assert await cluster.names(DAEMON_SETS) == {"ambit-node"}
    await cluster.done("uninstall", "--force")
    assert await cluster.names(DAEMON_SETS) == set()
