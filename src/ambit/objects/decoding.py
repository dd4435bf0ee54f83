"""Which API resources the compiler reads, and how their JSON becomes a projection."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ambit.objects import backend_policies, gateway, istio, kube, networking, routes, stream_routes, telemetry
from ambit.objects.nulls import make_decoder


class Projection(msgspec.Struct, frozen=True):
    """One resource: its API path parts and its decoder, which raises `msgspec.MsgspecError`."""

    group: str
    version: str
    plural: str
    kind: str
    type: type[Any]
    decode: Callable[[bytes], Any]
    namespaced: bool = True
    field_selector: str = ""
    """Chooses objects where not all are read."""

    @property
    def resource(self) -> str:
        """`pods`, `endpointslices.discovery.k8s.io`: plural and group as kubectl writes them."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def chooses(self, given: Mapping[str, Any]) -> bool:
        """Whether `field_selector`, which names a field at the top, is true of an object as JSON has it."""
        field, _, value = self.field_selector.partition("=")
        return not field or given.get(field) == value


def _plain(
    plural: str,
    of: type[Any],
    group: str = "",
    *,
    version: str = "v1",
    namespaced: bool = True,
    field_selector: str = "",
) -> Projection:
    decode = make_decoder(of)
    return Projection(group, version, plural, of.__name__, of, decode, namespaced, field_selector)


_ALL = (
    _plain("namespaces", kube.Namespace, namespaced=False),
    _plain("nodes", kube.Node, namespaced=False),
    _plain("services", kube.Service),
    _plain("endpointslices", kube.EndpointSlice, "discovery.k8s.io"),
    _plain("pods", kube.Pod),
    _plain("configmaps", kube.ConfigMap),
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
    Projection(
        "security.istio.io",
        "v1",
        "requestauthentications",
        "RequestAuthentication",
        istio.RequestAuthentication,
        istio.decode_request_authentication,
    ),
    _plain("telemetries", telemetry.Telemetry, "telemetry.istio.io"),
    _plain("serviceentries", networking.ServiceEntry, "networking.istio.io"),
    _plain("workloadentries", networking.WorkloadEntry, "networking.istio.io"),
    _plain("gatewayclasses", gateway.GatewayClass, gateway.GROUP, namespaced=False),
    _plain("gateways", gateway.Gateway, gateway.GROUP),
    _plain("httproutes", routes.HTTPRoute, gateway.GROUP),
    _plain("grpcroutes", routes.GRPCRoute, gateway.GROUP),
    _plain("listenersets", gateway.ListenerSet, gateway.GROUP),
    _plain("tlsroutes", stream_routes.TLSRoute, gateway.GROUP),
    _plain("tcproutes", stream_routes.TCPRoute, gateway.GROUP),
    _plain("udproutes", stream_routes.UDPRoute, gateway.GROUP),
    _plain("backendtlspolicies", backend_policies.BackendTLSPolicy, gateway.GROUP),
    _plain(
        "xbackendtrafficpolicies",
        backend_policies.XBackendTrafficPolicy,
        gateway.EXPERIMENTAL_GROUP,
        version="v1alpha1",
    ),
    _plain("secrets", kube.Secret, field_selector="type=kubernetes.io/tls"),
    # The version in which API servers store grants, and the only one that those before v1.5 serve.
    _plain("referencegrants", gateway.ReferenceGrant, gateway.GROUP, version="v1beta1"),
)

PROJECTIONS: dict[str, Projection] = {projection.resource: projection for projection in _ALL}
"""By resource, in the order in which a watcher should have synced them."""
