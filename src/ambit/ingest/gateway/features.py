"""The Gateway API's features (v1.6, names of its conformance suite), and where each of them is supported.

A feature is claimed where all of it works with the API's standard channel: GatewayClasses say so
(`status.supportedFeatures`), and docs/conformance.md is written from this.
"""

from enum import Enum

import msgspec


class Place(Enum):
    """Where requests are taken: at the edge, or at a waypoint for a Service as parent."""

    GATEWAY = "Gateway"
    MESH = "mesh"


class Feature(msgspec.Struct, frozen=True):
    """`places` is where it works; `note` says what is missing, or what to know. `experimental`: it needs a field that
    only the API's experimental channel has, so that it can be had where that is installed."""

    name: str
    places: tuple[Place, ...] = ()
    note: str = ""
    experimental: bool = False


_GATEWAY = (Place.GATEWAY,)
_MESH = (Place.MESH,)
_BOTH = (Place.GATEWAY, Place.MESH)
_RETRY = "with the API's experimental channel, which alone has the field `retry`"

FEATURES: tuple[Feature, ...] = (
    Feature("Gateway", _GATEWAY),
    Feature("Mesh", _MESH),
    Feature("ReferenceGrant", _BOTH),
    Feature("HTTPRoute", _BOTH),
    Feature("GRPCRoute", _BOTH),
    Feature("TLSRoute", _BOTH, "by the name in the client's hello; the bytes go on as they are"),
    Feature("TCPRoute", _BOTH),
    Feature("UDPRoute", _GATEWAY, "the mesh carries no UDP: datagrams go to pods as they are"),
    Feature("GatewayPort8080", _GATEWAY),
    Feature("GatewayStaticAddresses", _GATEWAY, "`IPAddress`, asked of the load balancer"),
    Feature("GatewayHTTPListenerIsolation", _GATEWAY),
    Feature("GatewayHTTPSListenerDetectMisdirectedRequests", _GATEWAY),
    Feature("GatewayInfrastructure", _GATEWAY),
    Feature("GatewayAddressEmpty", _GATEWAY),
    Feature("ListenerSet", _GATEWAY),
    Feature("GatewayBackendClientCertificate", _GATEWAY),
    Feature("GatewayFrontendClientCertificateValidation", _GATEWAY),
    Feature("GatewayFrontendClientCertificateValidationInsecureFallback", _GATEWAY),
    Feature("HTTPRouteBackendRequestHeaderModification", _BOTH),
    Feature("HTTPRouteQueryParamMatching", _BOTH),
    Feature("HTTPRouteMethodMatching", _BOTH),
    Feature("HTTPRouteResponseHeaderModification", _BOTH),
    Feature("HTTPRoutePortRedirect", _BOTH),
    Feature("HTTPRouteSchemeRedirect", _BOTH),
    Feature("HTTPRoutePathRedirect", _BOTH),
    Feature("HTTPRouteHostRewrite", _BOTH),
    Feature("HTTPRoutePathRewrite", _BOTH),
    Feature("HTTPRouteRequestMirror", _BOTH),
    Feature("HTTPRouteRequestMultipleMirrors", _BOTH),
    Feature("HTTPRouteRequestPercentageMirror", _BOTH),
    Feature("HTTPRouteRequestTimeout", _BOTH),
    Feature("HTTPRouteBackendTimeout", _BOTH),
    Feature(
        "HTTPRouteParentRefPort", _BOTH, "of a Service as parent: its port; of a Gateway: its listener's"
    ),
    Feature("HTTPRouteDestinationPortMatching", _BOTH),
    Feature(
        "HTTPRouteBackendProtocolH2C", _BOTH, "also `http2` and `grpc` as `appProtocol` or name of the port"
    ),
    Feature("HTTPRouteBackendProtocolWebSocket", _BOTH, "whether or not the port says so"),
    Feature("HTTPRouteNamedRouteRule", _BOTH, "the name is in telemetry"),
    Feature("HTTPRouteCORS", _BOTH),
    Feature("HTTPRoute303RedirectStatusCode", _BOTH),
    Feature("HTTPRoute307RedirectStatusCode", _BOTH),
    Feature("HTTPRoute308RedirectStatusCode", _BOTH),
    Feature("HTTPRouteRetry", _BOTH, _RETRY, experimental=True),
    Feature("HTTPRouteRetryBackendTimeout", _BOTH, _RETRY, experimental=True),
    Feature("HTTPRouteRetryConnectionError", _BOTH, _RETRY, experimental=True),
    Feature("GRPCRouteNamedRouteRule", _BOTH, "the name is in telemetry"),
    Feature("BackendTLSPolicy", _BOTH, "targets are Services and ServiceEntries"),
    Feature("BackendTLSPolicySANValidation", _BOTH),
    Feature("TLSRouteModeTerminate", _GATEWAY),
    Feature("TLSRouteModeMixed", _GATEWAY),
    Feature("MeshClusterIPMatching", _MESH, "the address that was called counts, whatever `Host` says"),
    Feature("MeshConsumerRoute", _MESH),
    Feature("MeshHTTPRouteRewritePath", _MESH),
    Feature("MeshHTTPRouteSchemeRedirect", _MESH),
    Feature("MeshHTTPRouteRedirectPort", _MESH),
    Feature("MeshHTTPRouteRedirectPath", _MESH),
    Feature("MeshHTTPRouteBackendRequestHeaderModification", _MESH),
    Feature("MeshHTTPRouteQueryParamMatching", _MESH),
    Feature("MeshHTTPRouteNamedRouteRule", _MESH),
)


def supported(place: Place, *, experimental: bool = False) -> tuple[str, ...]:
    """The names of what works there, sorted: with the API's standard channel, or with the experimental one."""
    return tuple(
        sorted(
            each.name for each in FEATURES if place in each.places and (experimental or not each.experimental)
        )
    )
