"""Which identities the server of a tunnel may prove: its workload's own, and those that its service names."""

from collections.abc import Iterable

from ambit.core.identity import Identity
from ambit.model.view import MeshView
from ambit.plan.values import NodeSettings


def pins(identities: Iterable[Identity], named: Iterable[str], settings: NodeSettings) -> list[str]:
    """These identities in every trust domain that means the same, and `named` as they are."""
    own = (form.uri for identity in identities for form in settings.trust_domains.forms(identity))
    return sorted({*own, *named})


def of_tunnel(identity: Identity, service: str, view: MeshView, settings: NodeSettings) -> list[str]:
    """For tunnels to a workload that was chosen for a service (empty: for itself)."""
    known = view.service(service) if service else None
    return pins((identity,), spiffe(known.subject_alt_names) if known else (), settings)


def with_names(service: str, view: MeshView) -> str:
    """The service's key if it names identities, else nothing: so tunnels to one identity share a cluster."""
    known = view.service(service) if service else None
    return service if known is not None and known.subject_alt_names else ""


def spiffe(names: Iterable[str]) -> list[str]:
    """Only SPIFFE identities count; DNS names are never compared (ztunnel)."""
    return [each for each in names if each.startswith("spiffe://")]
