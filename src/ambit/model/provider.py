"""Services that the mesh's settings name as providers: whom proxies ask, or tell, beside an application's traffic."""

import msgspec

from ambit.model.policy import Exact, Prefix, Suffix


class ProviderService(msgspec.Struct, frozen=True):
    """A service by its fully qualified host name. `namespace` is given where the name alone is not enough."""

    hostname: str
    port: int
    namespace: str = ""

    @property
    def key(self) -> str:
        """Of the service: of a Kubernetes Service the namespace is in its name."""
        namespace = self.namespace or (*self.hostname.split("."), "")[1]
        return f"{namespace}/{self.hostname}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.hostname}" if self.namespace else self.hostname


class Others(msgspec.Struct, frozen=True, tag="others"):
    """Every name but these."""

    names: tuple[str, ...]


HeaderNames = tuple[Exact | Prefix | Suffix | Others, ...]
"""Names of headers, in lower case."""


class BodyInCheck(msgspec.Struct, frozen=True):
    """How much of a request's body is sent along, in bytes: of a longer one a part, or it is refused with 413."""

    max_bytes: int
    allow_partial: bool = False
    as_bytes: bool = False


class OverHttp(msgspec.Struct, frozen=True):
    """What is particular to asking over HTTP. `check` are headers of the request that are sent along, `added` what is
    sent in any case; the others say which headers of the answer go on, where to."""

    path_prefix: str = ""
    check: HeaderNames = ()
    added: tuple[tuple[str, str], ...] = ()
    upstream_on_allow: HeaderNames = ()
    downstream_on_deny: HeaderNames = ()
    downstream_on_allow: HeaderNames = ()


class Authorizer(msgspec.Struct, frozen=True):
    """Whom policies with the action CUSTOM ask (Istio: `envoyExtAuthzHttp`, `envoyExtAuthzGrpc`), or routes (Gateway
    API `HTTPExternalAuthFilter`). `timeout` is in milliseconds, `status_on_error` what is answered when nobody can be
    asked; with `fail_open` the request passes then. Without `http` it is asked over gRPC, where `check` are the headers
    that are sent along, all when there are none."""

    name: str
    service: ProviderService
    timeout: int = 600_000
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: int = 403
    body: BodyInCheck | None = None
    http: OverHttp | None = None
    check: HeaderNames = ()

    @property
    def is_grpc(self) -> bool:
        return self.http is None
