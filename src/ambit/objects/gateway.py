"""Typed projections of the Gateway API (gateway.networking.k8s.io): classes, gateways and grants.

Defaults are those of the CRDs (v1.6), so that files read as an API server would store them. Routes:
`ambit.objects.routes`.
"""

import msgspec

from ambit.core.selector import Selector
from ambit.objects.meta import ObjectMeta

GROUP = "gateway.networking.k8s.io"
EXPERIMENTAL_GROUP = "gateway.networking.x-k8s.io"


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


class SecretReference(msgspec.Struct, frozen=True):
    """`namespace` is empty for the object's own."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str = ""


class ListenerTls(msgspec.Struct, frozen=True, rename="camel"):
    mode: str = "Terminate"
    certificate_refs: tuple[SecretReference, ...] = ()
    options: dict[str, str] = {}


class Listener(msgspec.Struct, frozen=True, rename="camel"):
    """`hostname` is empty for any."""

    name: str
    port: int
    protocol: str
    hostname: str = ""
    tls: ListenerTls | None = None
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


class ObjectReference(msgspec.Struct, frozen=True):
    """`namespace` is empty for the object's own."""

    kind: str
    name: str
    group: str = ""
    namespace: str = ""


class FrontendValidation(msgspec.Struct, frozen=True):
    """`mode`: `AllowValidOnly` or `AllowInsecureFallback`."""

    ca_certificate_refs: tuple[ObjectReference, ...] = msgspec.field(default=(), name="caCertificateRefs")
    mode: str = "AllowValidOnly"


class FrontendTls(msgspec.Struct, frozen=True):
    validation: FrontendValidation | None = None


class PortTls(msgspec.Struct, frozen=True):
    port: int
    tls: FrontendTls = FrontendTls()


class Frontend(msgspec.Struct, frozen=True, rename="camel"):
    """Of clients: what holds for the ports that are not named, and for those that are."""

    default: FrontendTls = FrontendTls()
    per_port: tuple[PortTls, ...] = ()


class BackendConnections(msgspec.Struct, frozen=True, rename="camel"):
    client_certificate_ref: SecretReference | None = None


class GatewayTls(msgspec.Struct, frozen=True):
    """`frontend` is about clients, `backend` about servers."""

    frontend: Frontend | None = None
    backend: BackendConnections = BackendConnections()


class AllowedListeners(msgspec.Struct, frozen=True):
    """Whose ListenerSets add listeners: nobody's, unless it is said."""

    namespaces: RouteNamespaces = RouteNamespaces("None")


class GatewaySpec(msgspec.Struct, frozen=True, rename="camel"):
    gateway_class_name: str = ""
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: Infrastructure = Infrastructure()
    tls: GatewayTls | None = None
    allowed_listeners: AllowedListeners = AllowedListeners()

    @property
    def wanted_addresses(self) -> tuple[str, ...]:
        """Those with a value; one without asks for any."""
        return tuple(each.value for each in self.addresses if each.value)


class Gateway(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: GatewaySpec = GatewaySpec()


class ParentGateway(msgspec.Struct, frozen=True):
    """`namespace` is empty for that of the set."""

    name: str = ""
    namespace: str = ""
    group: str = GROUP
    kind: str = "Gateway"


class ListenerSetSpec(msgspec.Struct, frozen=True, rename="camel"):
    parent_ref: ParentGateway = ParentGateway()
    listeners: tuple[Listener, ...] = ()


class ListenerSet(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: ListenerSetSpec = ListenerSetSpec()

    @property
    def gateway(self) -> str:
        """The key of the Gateway that it is for; empty when it names something else."""
        parent = self.spec.parent_ref
        if (parent.group, parent.kind) != (GROUP, "Gateway") or not parent.name:
            return ""
        return f"{parent.namespace or self.metadata.namespace}/{parent.name}"


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
