"""Whom policies with the action CUSTOM ask: the providers of the mesh's settings, and their services."""

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.settings import MeshSettings
from ambit.model.provider import ProviderService
from ambit.model.request_policy import Asked, RequestAction, RequestPolicy
from ambit.model.service import Service


class Nobody(msgspec.Struct, frozen=True):
    """Why nobody can be asked, with what to do."""

    text: str


class Providers:
    """Finds them among these services."""

    def __init__(self, services: Collection[Service], settings: MeshSettings) -> None:
        self._services = services
        self._by_host = services.index(lambda each: [each.hostname])
        self._domain = settings.cluster_domain
        self._authorizers = {each.name: each for each in settings.authorizers}

    def asking(self, context: Context, policy: RequestPolicy) -> RequestPolicy:
        """The policy with whom it asks, as far as there is somebody."""
        if policy.action is not RequestAction.CUSTOM:
            return policy
        found = self.asked(context, policy)
        return msgspec.structs.replace(policy, asked=found) if isinstance(found, Asked) else policy

    def asked(self, context: Context, policy: RequestPolicy) -> Asked | Nobody:
        """Whom a policy with the action CUSTOM asks."""
        authorizer = self._authorizers.get(policy.provider)
        if authorizer is None:
            known = ", ".join(sorted(self._authorizers)) or "none"
            given = f"no provider {policy.provider!r}" if policy.provider else "no provider"
            return Nobody(
                f"{given} is among extensionProviders of the mesh's settings (there are: {known}); name one that is"
            )
        found = self._service(context, authorizer.service)
        if isinstance(found, Nobody):
            return Nobody(f"provider {policy.provider!r}: {found.text}")
        return Asked(authorizer, found.key)

    def _service(self, context: Context, wanted: ProviderService) -> Service | Nobody:
        if namespace := wanted.namespace or self._namespace(wanted.hostname):
            service = context.get(self._services, f"{namespace}/{wanted.hostname}")
            found = [service] if service is not None else []
        else:
            found = context.lookup(self._by_host, wanted.hostname)
        if not found:
            return Nobody(f"there is no service {wanted}")
        if len(found) > 1:
            several = ", ".join(sorted(each.namespace for each in found))
            return Nobody(
                f"{wanted} is in several namespaces ({several}); write <namespace>/{wanted.hostname}"
            )
        if not any(each.service == wanted.port for each in found[0].ports):
            return Nobody(f"service {wanted} has no port {wanted.port}")
        return found[0]

    def _namespace(self, hostname: str) -> str:
        """Of a Kubernetes Service, whose name only a Service of that namespace has."""
        rest, found, _ = hostname.partition(f".svc.{self._domain}")
        _, dot, namespace = rest.partition(".")
        return namespace if found and dot else ""
