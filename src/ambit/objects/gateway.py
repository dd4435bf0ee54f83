"""Typed projections of the Gateway API (gateway.networking.k8s.io): classes, gateways and grants.

Defaults are those of the CRDs (v1.6), so that files read as an API server would store them. Routes:
`ambit.objects.routes`.
"""

import msgspec

from ambit.core.selector import Selector
from ambit.objects.meta import ObjectMeta

GROUP = "gateway.networking.k8s.io"


class GatewayClassSpec(msgspec.Struct, frozen=True, rename="camel"):
    controller_name: str = ""


class GatewayClass(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: GatewayClassSpec = GatewayClassSpec()


class RouteNamespaces(msgspec.Struct, frozen=True, rename={"sources": "from"}):
    """`sources`: `Same`, `All` or `Selector`."""

    sources: str = "Same"
    selector: Selector = Selector()


class RouteGroupKind(msgspec.Struct, frozen=True):
    kind: str
    group: str = GROUP


class AllowedRoutes(msgspec.Struct, frozen=True):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class Listener(msgspec.Struct, frozen=True, rename="camel"):
    """`hostname` is empty for any."""

    name: str
    port: int
    protocol: str
    hostname: str = ""
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(msgspec.Struct, frozen=True):
    value: str = ""
    type: str = "IPAddress"


class ParametersReference(msgspec.Struct, frozen=True):
    group: str
    kind: str
    name: str


class Infrastructure(msgspec.Struct, frozen=True, rename="camel"):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    parameters_ref: ParametersReference | None = None


class GatewaySpec(msgspec.Struct, frozen=True, rename="camel"):
    gateway_class_name: str = ""
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: Infrastructure = Infrastructure()


class Gateway(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: GatewaySpec = GatewaySpec()


class GrantFrom(msgspec.Struct, frozen=True):
    kind: str
    namespace: str
    group: str = ""


class GrantTo(msgspec.Struct, frozen=True):
    """`name` is empty for all of that kind."""

    kind: str
    group: str = ""
    name: str = ""


class ReferenceGrantSpec(msgspec.Struct, frozen=True, rename={"sources": "from"}):
    sources: tuple[GrantFrom, ...] = ()
    to: tuple[GrantTo, ...] = ()


class ReferenceGrant(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: ReferenceGrantSpec = ReferenceGrantSpec()
