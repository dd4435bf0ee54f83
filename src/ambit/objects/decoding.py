"""Which API resources the compiler reads, and how their JSON becomes a projection."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ambit.objects import istio, kube, networking

P = TypeVar("P")


class Projection(msgspec.Struct, frozen=True):
    """One resource: its API path parts and its decoder, which raises `msgspec.MsgspecError`."""

    group: str
    version: str
    plural: str
    kind: str
    type: type[Any]
    decode: Callable[[bytes], Any]

    @property
    def resource(self) -> str:
        """`pods`, `endpointslices.discovery.k8s.io`: plural and group as kubectl writes them."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _decoder(of: type[P]) -> Callable[[bytes], P]:
    return msgspec.json.Decoder(of).decode


def _kube(plural: str, of: type[Any], group: str = "") -> Projection:
    return Projection(group, "v1", plural, of.__name__, of, _decoder(of))


_ALL = (
    _kube("namespaces", kube.Namespace),
    _kube("nodes", kube.Node),
    _kube("services", kube.Service),
    _kube("endpointslices", kube.EndpointSlice, "discovery.k8s.io"),
    _kube("pods", kube.Pod),
    Projection(
        "security.istio.io",
        "v1",
        "authorizationpolicies",
        "AuthorizationPolicy",
        istio.AuthorizationPolicy,
        istio.decode_authorization_policy,
    ),
    Projection(
        "security.istio.io",
        "v1",
        "peerauthentications",
        "PeerAuthentication",
        istio.PeerAuthentication,
        istio.decode_peer_authentication,
    ),
    _kube("serviceentries", networking.ServiceEntry, "networking.istio.io"),
    _kube("workloadentries", networking.WorkloadEntry, "networking.istio.io"),
)

PROJECTIONS: dict[str, Projection] = {projection.resource: projection for projection in _ALL}
"""By resource, in the order in which a watcher should have synced them."""
