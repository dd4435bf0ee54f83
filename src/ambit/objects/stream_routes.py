"""Typed projections of the Gateway API's routes of bytes: TLSRoute, TCPRoute and UDPRoute (v1.6)."""

import msgspec

from ambit.objects.meta import ObjectMeta
from ambit.objects.routes import BackendObject, ParentRef


class StreamBackend(msgspec.Struct, frozen=True):
    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: int = 0
    weight: int = 1

    @property
    def object(self) -> BackendObject:
        return BackendObject(self.name, self.group, self.kind, self.namespace, self.port)


class StreamRule(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    backend_refs: tuple[StreamBackend, ...] = ()


class StreamSpec(msgspec.Struct, frozen=True, rename="camel"):
    parent_refs: tuple[ParentRef, ...] = ()
    rules: tuple[StreamRule, ...] = ()


class TlsSpec(StreamSpec, frozen=True):
    hostnames: tuple[str, ...] = ()


class TLSRoute(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: TlsSpec = TlsSpec()


class TCPRoute(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: StreamSpec = StreamSpec()


class UDPRoute(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: StreamSpec = StreamSpec()
