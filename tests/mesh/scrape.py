"""What node agents and proxies of Gateways count, as a scraper reads it."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from ambit.core.names import METRICS_PORT
from ambit.testing.mesh import Mesh

NODE_AGENTS = "-n", "ambit-system", "-l", "app=ztunnel"
PLACES = "jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP}{'\\n'}{end}"


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def scrape(mesh: Mesh) -> list[Sample]:
    """Samples of all node agents."""
    agents = mesh.kubectl("get", "pods", *NODE_AGENTS, "-o", PLACES).stdout
    texts = [
        mesh.on_node(node, "curl", "-sS", f"{address}:{METRICS_PORT}/metrics").stdout
        for node, address in (line.split() for line in agents.splitlines())
    ]
    return _samples(texts)


def scrape_gateway(mesh: Mesh, namespace: str, gateway: str) -> list[Sample]:
    """Samples of all pods of a Gateway that answer; those of one before it may still be ending."""
    select = ("-n", namespace, "-l", f"gateway.networking.k8s.io/gateway-name={gateway}")
    addresses = mesh.kubectl("get", "pods", *select, "-o", "jsonpath={.items[*].status.podIP}").stdout.split()
    words = ("curl", "-sS", "-m", "10")
    return _samples(
        mesh.on_node(mesh.nodes[0], *words, f"http://{address}:{METRICS_PORT}/metrics", check=False).stdout
        for address in addresses
    )


def _samples(texts: Iterable[str]) -> list[Sample]:
    return [
        Sample(name, dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)), float(value))
        for text in texts
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    ]


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """The sum of a metric over samples with these labels."""
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())
