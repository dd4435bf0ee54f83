"""The charts as Helm renders them, without a cluster and without the long definitions of kinds."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from ambit.cli.helm import ADMISSION_POLICIES, PARTS, UMBRELLA, umbrella_chart

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
GOLDEN = Path(__file__).parent / "golden"
CASES: dict[str, tuple[str, ...]] = {
    "default": (),
    "everything-set": (
        "global.hub=registry.example/mesh",
        "global.tag=1.2",
        "global.imagePullPolicy=Always",
        "global.imagePullSecrets={one,two}",
        "global.meshConfig.trustDomain=example.org",
        "global.meshConfig.trustDomainAliases={cluster.local,old.example}",
        "global.meshConfig.rootNamespace=policies",
        "global.meshConfig.serviceEntryVisibility.defaultVisibility=NAMESPACE",
        "global.meshConfig.serviceEntryVisibility.policies[0].visibility=PUBLIC",
        "global.meshConfig.serviceEntryVisibility.policies[0].matchingRules[0].namespaceSelector.matchLabels.team=mesh",
        "global.meshConfig.accessLogFile=/dev/stdout",
        "global.meshConfig.accessLogEncoding=JSON",
        "global.meshConfig.extensionProviders[0].name=asked",
        "global.meshConfig.extensionProviders[0].envoyExtAuthzGrpc.service=authz.shop.svc.cluster.local",
        "global.meshConfig.extensionProviders[0].envoyExtAuthzGrpc.port=9000",
        "global.meshConfig.extensionProviders[1].name=spans",
        "global.meshConfig.extensionProviders[1].opentelemetry.service=otel.obs.svc.cluster.local",
        "global.meshConfig.extensionProviders[1].opentelemetry.port=4317",
        "global.meshConfig.extensionProviders[2].name=otel",
        "global.meshConfig.extensionProviders[2].envoyOtelAls.service=otel.obs.svc.cluster.local",
        "global.meshConfig.extensionProviders[2].envoyOtelAls.port=4317",
        "global.meshConfig.defaultProviders.accessLogging={otel}",
        "global.meshConfig.defaultProviders.tracing={spans}",
        "global.meshConfig.defaultConfig.tracing.sampling=10",
        "global.meshConfig.defaultConfig.gatewayTopology.numTrustedProxies=1",
        "global.multiCluster.clusterName=east",
        "global.network=net1",
        "global.logging.level=debug",
        "global.logAsJson=true",
        "global.priorityClasses=false",
        "global.networkPolicy.enabled=true",
        "base.crds.gatewayAPI=false",
        "control.alerts=true",
        "control.replicaCount=2",
        "control.trustedNodeAccounts={istio-system/ztunnel}",
        "control.certificateLifetime=12h",
        "control.jwksNetworks={10.20.0.0/16}",
        "control.gatewayPatches.annotations={eks.amazonaws.com/role-arn,vault.hashicorp.com/*}",
        "control.gatewayPatches.maxReplicas=500",
        "control.nodeSelector.disk=fast",
        "control.podLabels.team=mesh",
        "control.podAnnotations.note=here",
        "control.tolerations[0].operator=Exists",
        "node.image=registry.example/other:3",
        "node.caAddress=control.example:15012",
        "node.accessLog=false",
        "node.concurrency=auto",
        "node.maxDrain=60",
        "node.capture=tproxy",
        "node.sameNodeTLS=true",
        "node.dnsCapture=false",
        "node.reconcileRules=false",
        "node.cni.cniBinDir=/var/lib/rancher/bin",
        "node.cni.cniConfDir=/var/lib/rancher/net.d",
        "node.cni.systemNamespaces={kube-system,network}",
        "node.cni.excludeNamespaces={kube-system,monitoring}",
        "node.podLabels.team=mesh",
        "node.seccompProfile.type=Localhost",
        "node.seccompProfile.localhostProfile=profiles/ambit.json",
        "node.updateStrategy.type=OnDelete",
        "node.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=zone",
    ),
    "node-only": ("base.enabled=false", "control.enabled=false", "node.cni.enabled=false"),
}
"""Goldens and the values they are rendered with."""


def source_digest() -> str:
    """Of every file of the charts: a golden says which it was rendered from."""
    digest = hashlib.sha256()
    for path in sorted(CHARTS.rglob("*")):
        relative = path.relative_to(CHARTS)
        if path.is_file() and relative.parts[:2] != (UMBRELLA, "charts"):
            digest.update(f"{relative}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def render(helm: str, values: tuple[str, ...]) -> str:
    """The umbrella chart's objects; definitions of kinds by name only."""
    options = [part for value in values for part in ("--set", value)]
    with umbrella_chart() as chart:
        command = [helm, "template", "ambit", os.fspath(chart), "--namespace", "ambit-system", *options]
        command += ["--api-versions", ADMISSION_POLICIES]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout
    documents = [each for each in text.split("---\n") if each.strip()]
    return "---\n".join(_named_only(each) for each in documents)


def _named_only(document: str) -> str:
    if '"kind":"CustomResourceDefinition"' not in document:
        return document
    value = yaml.load(document, Loader=yaml.CSafeLoader)
    return f"kind: CustomResourceDefinition\nmetadata: {{name: {value['metadata']['name']}}}\n"


def golden_objects(name: str = "default") -> list[dict[str, Any]]:
    """The objects of a golden, without definitions of kinds."""
    text = (GOLDEN / f"{name}.yaml").read_text()
    found = [value for value in yaml.load_all(text, Loader=yaml.CSafeLoader) if value]
    return [value for value in found if value["kind"] != "CustomResourceDefinition"]


def all_charts() -> list[Path]:
    return [CHARTS / name for name in (*PARTS, UMBRELLA)]
