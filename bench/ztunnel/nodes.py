"""Turning nodes of a laptop cluster into ztunnel's: our node agent leaves them, a DaemonSet of ztunnel comes."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.resource import DAEMON_SETS, PODS
from bench.instance import repository, until

VARIABLE = "AMBIT_BENCH_ZTUNNEL"
"""Names the program."""
NAME = "stock-ztunnel"
HOSTNAME = "kubernetes.io/hostname"
ISTIOD = f"https://istiod.{SYSTEM_NAMESPACE}.svc:15012"
RUN_DIRECTORY = "/run/ambit/nodes/$(NODE_NAME)"


def program() -> Path | None:
    """The ztunnel to use, if there is one. Raises FileNotFoundError for a path that leads nowhere."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named).expanduser().absolute()
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{VARIABLE}={named}: there is no such program")
    return path


async def give_nodes(client: Client, ztunnel: Path, nodes: Sequence[str]) -> None:
    """Until a ztunnel is ready on each of these nodes, which must not have captured pods yet."""
    ours = {
        "spec": {
            "updateStrategy": {
                "type": "OnDelete",
                "rollingUpdate": None,
            },  # elsewhere agents stay as they are
            "template": {"spec": {"affinity": _affinity("NotIn", nodes)}},
        }
    }
    await client.patch(DAEMON_SETS, "ambit-node", ours, SYSTEM_NAMESPACE)

    async def left() -> bool:
        found = await client.list(PODS, SYSTEM_NAMESPACE, label_selector="app=ztunnel")
        return not {each["spec"]["nodeName"] for each in found}.intersection(nodes)

    await until(f"our agent has left {', '.join(nodes)}", left)
    await client.create(DAEMON_SETS, daemon_set(ztunnel, nodes))

    async def ready() -> bool:
        status = (await client.get(DAEMON_SETS, NAME, SYSTEM_NAMESPACE)).get("status", {})
        return bool(status.get("numberReady") == len(nodes))

    await until(f"ztunnel is ready on {', '.join(nodes)}", ready)


def daemon_set(ztunnel: Path, nodes: Sequence[str]) -> dict[str, Any]:
    """ztunnel with what it is given on Kubernetes, and the agent beside it."""
    fields = {
        "NODE_NAME": "spec.nodeName",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "INSTANCE_IP": "status.podIP",
    }
    identity = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
    ]
    settings = {"XDS_ADDRESS": ISTIOD, "CA_ADDRESS": ISTIOD, "INPOD_UDS": f"{RUN_DIRECTORY}/ztunnel.sock"}
    path = os.pathsep.join([str(repository()), *filter(None, sys.path)])
    common = {"image": "ambit/bench", "securityContext": {"privileged": True}}
    containers = [
        {
            **common,
            "name": "ztunnel",
            "command": [str(ztunnel), "proxy", "ztunnel"],
            "env": [*identity, *({"name": name, "value": value} for name, value in settings.items())],
            "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1},
            "volumeMounts": [
                {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
                {"name": "root-cert", "mountPath": "/var/run/secrets/istio"},
            ],
        },
        {
            **common,
            "name": "agent",
            "command": [sys.executable, "-m", "bench.ztunnel.agent", RUN_DIRECTORY],
            "env": [*identity, {"name": "PYTHONPATH", "value": path}],
        },
    ]
    token = {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}
    volumes = [
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "root-cert", "configMap": {"name": "istio-ca-root-cert"}},
    ]
    labels = {"app": NAME}
    spec = {
        "serviceAccountName": "ztunnel",
        "hostNetwork": True,
        "hostPID": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": 1,
        "affinity": _affinity("In", nodes),
        "containers": containers,
        "volumes": volumes,
    }
    return {
        "metadata": {"name": NAME, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": {**labels, "istio.io/dataplane-mode": "none"}}, "spec": spec},
        },
    }


def _affinity(operator: str, nodes: Sequence[str]) -> dict[str, Any]:
    names = {"key": HOSTNAME, "operator": operator, "values": list(nodes)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [names]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
