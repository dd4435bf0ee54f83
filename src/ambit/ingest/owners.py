"""Whose an address or a name of the cluster is: what other objects must not claim.

Addresses of Services and of pods (on the host's network: the node's) are theirs. Names under the cluster domain are
their namespace's, in the short forms too that pods ask for: `NAME.NAMESPACE`, `NAME.NAMESPACE.svc`, and whatever is
below the name of a Service, such as its pods'.
"""

import ipaddress

from ambit.core.finding import ObjectRef
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.objects.kube import Namespace, Pod, Service


class Owners:
    """Answers read through the context, so they are asked again when they change."""

    def __init__(
        self,
        namespaces: Collection[Namespace],
        services: Collection[Service],
        pods: Collection[Pod],
        domain: str,
    ) -> None:
        self._namespaces = namespaces
        self._services = services
        self._by_virtual = services.index(lambda given: map(normal, given.addresses))
        self._by_address = pods.index(lambda pod: () if pod.finished else map(normal, pod.addresses))
        self._domain = domain

    def of_address(self, context: Context, address: str) -> ObjectRef | None:
        """The Service, else the pod that has this address (as `normal` writes it)."""
        for service in self.services_at(context, address):
            return service.metadata.reference("Service")
        for pod in self.pods_at(context, address):
            return pod.metadata.reference("Pod")
        return None

    def services_at(self, context: Context, address: str) -> list[Service]:
        """The Services with this address of the cluster (as `normal` writes it)."""
        return context.lookup(self._by_virtual, address)

    def pods_at(self, context: Context, address: str) -> list[Pod]:
        """The pods that say they have this address, and have not ended."""
        return context.lookup(self._by_address, address)

    def of_host(self, context: Context, host: str, namespace: str) -> str:
        """Who has this host, in words, when no other object may: names of Services, and of other namespaces than the
        given one. Empty for a host that is free."""
        below = host.removeprefix("*.")
        is_pattern = below != host
        if below == "svc" or below.endswith(".svc"):
            below = f"{below}.{self._domain}"
        services = f"svc.{self._domain}"
        if f".{below}".endswith(f".{self._domain}"):
            rest = below.removesuffix(services).removesuffix(".")
            if rest in ("", below):
                return "the cluster domain"
            *names, owner = rest.split(".")
            if owner != namespace:
                return self._service(context, owner, names) or f"Namespace {owner}"
            if len(names) == 1 and not is_pattern:
                return self._service(context, owner, names)
            return "" if names or is_pattern else f"Namespace {owner}"
        if is_pattern and self._domain.endswith(f".{below}"):
            return "the cluster domain"
        *names, owner = below.split(".")
        if owner == namespace:
            return ""
        if not names:
            known = is_pattern and context.get(self._namespaces, owner) is not None
            return f"Namespace {owner}" if known else ""
        return self._service(context, owner, names)

    def _service(self, context: Context, namespace: str, names: list[str]) -> str:
        given = context.get(self._services, f"{namespace}/{names[-1]}") if names else None
        return str(given.metadata.reference("Service")) if given is not None else ""


def normal(address: str) -> str:
    """An IP address or range in its one usual form; anything else as it is."""
    if "/" not in address and ":" not in address:
        return address
    try:
        network = ipaddress.ip_network(address, strict=False)
    except ValueError:
        return address
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)
