"""Typed projections of the Gateway API's routes: HTTPRoute and GRPCRoute. Defaults are those of the CRDs (v1.6)."""

import msgspec

from ambit.objects.gateway import GROUP
from ambit.objects.meta import ObjectMeta


class ParentRef(msgspec.Struct, frozen=True, rename="camel"):
    """`namespace` is empty for the route's own, `port` 0 and `section_name` empty for all."""

    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""
    section_name: str = ""
    port: int = 0


class HeaderValue(msgspec.Struct, frozen=True):
    name: str
    value: str


class HeaderModifier(msgspec.Struct, frozen=True):
    set: tuple[HeaderValue, ...] = ()
    add: tuple[HeaderValue, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    replace_full_path: str = ""
    replace_prefix_match: str = ""


class RequestRedirect(msgspec.Struct, frozen=True, rename="camel"):
    scheme: str = ""
    hostname: str = ""
    path: PathModifier | None = None
    port: int = 0
    status_code: int = 302


class UrlRewrite(msgspec.Struct, frozen=True):
    hostname: str = ""
    path: PathModifier | None = None


class BackendObject(msgspec.Struct, frozen=True):
    """What a backend or mirror names; `namespace` is empty for the route's own, `port` 0 when it is not given."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: int = 0


class Fraction(msgspec.Struct, frozen=True):
    numerator: int
    denominator: int = 100


class RequestMirror(msgspec.Struct, frozen=True, rename="camel"):
    backend_ref: BackendObject
    percent: int | None = None
    fraction: Fraction | None = None


class CorsFilter(msgspec.Struct, frozen=True, rename="camel"):
    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5


class GrpcAuth(msgspec.Struct, frozen=True, rename="camel"):
    allowed_headers: tuple[str, ...] = ()


class HttpAuth(msgspec.Struct, frozen=True, rename="camel"):
    path: str = ""
    allowed_headers: tuple[str, ...] = ()
    allowed_response_headers: tuple[str, ...] = ()


class ForwardBody(msgspec.Struct, frozen=True, rename="camel"):
    max_size: int = 0


class ExternalAuth(msgspec.Struct, frozen=True, rename="camel"):
    """`protocol` is HTTP or GRPC, and says which of `http` and `grpc` counts."""

    protocol: str
    backend_ref: BackendObject
    grpc: GrpcAuth = GrpcAuth()
    http: HttpAuth = HttpAuth()
    forward_body: ForwardBody = ForwardBody()


class Filter(msgspec.Struct, frozen=True, rename="camel"):
    """`type` says which of the other fields counts."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    cors: CorsFilter | None = None
    external_auth: ExternalAuth | None = None


class BackendRef(msgspec.Struct, frozen=True):
    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: int = 0
    weight: int = 1
    filters: tuple[Filter, ...] = ()

    @property
    def object(self) -> BackendObject:
        return BackendObject(self.name, self.group, self.kind, self.namespace, self.port)


class PathMatch(msgspec.Struct, frozen=True):
    type: str = "PathPrefix"
    value: str = "/"


class ValueMatch(msgspec.Struct, frozen=True):
    """Of a header or a query parameter."""

    name: str
    value: str
    type: str = "Exact"


class HttpMatch(msgspec.Struct, frozen=True, rename="camel"):
    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str = ""


class Timeouts(msgspec.Struct, frozen=True, rename="camel"):
    """Durations of the Gateway API (GEP-2257)."""

    request: str = ""
    backend_request: str = ""


class RetryPolicy(msgspec.Struct, frozen=True):
    codes: tuple[int, ...] = ()
    attempts: int | None = None
    backoff: str = ""


class CookieConfig(msgspec.Struct, frozen=True, rename="camel"):
    lifetime_type: str = "Session"


class Persistence(msgspec.Struct, frozen=True, rename="camel"):
    session_name: str = ""
    absolute_timeout: str = ""
    type: str = "Cookie"
    cookie_config: CookieConfig = CookieConfig()


class HttpRule(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    matches: tuple[HttpMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy | None = None
    session_persistence: Persistence | None = None


class HttpRouteSpec(msgspec.Struct, frozen=True, rename="camel"):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[HttpRule, ...] = (HttpRule(),)


class HTTPRoute(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: HttpRouteSpec = HttpRouteSpec()


class MethodMatch(msgspec.Struct, frozen=True):
    """Of a gRPC call; an empty service or method is any."""

    type: str = "Exact"
    service: str = ""
    method: str = ""


class GrpcMatch(msgspec.Struct, frozen=True):
    method: MethodMatch = MethodMatch()
    headers: tuple[ValueMatch, ...] = ()


class GrpcRule(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    matches: tuple[GrpcMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    session_persistence: Persistence | None = None


class GrpcRouteSpec(msgspec.Struct, frozen=True, rename="camel"):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[GrpcRule, ...] = ()


class GRPCRoute(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: GrpcRouteSpec = GrpcRouteSpec()
