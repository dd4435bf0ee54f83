"""Protocols of ports by the names that Kubernetes and Istio give them."""

from ambit.model.service import AppProtocol

_BY_NAME: dict[str, AppProtocol] = {
    "http": AppProtocol.HTTP11,
    "http1": AppProtocol.HTTP11,
    "kubernetes.io/ws": AppProtocol.HTTP11,
    "http2": AppProtocol.HTTP2,
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "grpc-web": AppProtocol.GRPC,
    "tcp": AppProtocol.TCP,
    "mongo": AppProtocol.TCP,
    "mysql": AppProtocol.TCP,
    "redis": AppProtocol.TCP,
    "tls": AppProtocol.TLS,
    "https": AppProtocol.TLS,
    "kubernetes.io/wss": AppProtocol.TLS,
}


def protocol_named(name: str) -> AppProtocol:
    """UNKNOWN for names that mean nothing to us; letters of either case."""
    return _BY_NAME.get(name.lower(), AppProtocol.UNKNOWN)


def protocol_of_port(port_name: str) -> AppProtocol:
    """A port's name up to its first dash says what it speaks (Istio protocol selection)."""
    if port_name.lower().startswith("grpc-web"):
        return AppProtocol.GRPC
    return protocol_named(port_name.partition("-")[0])
