"""The certificate service `istio.v1.auth.IstioCertificateService`, as a client."""

import asyncio

import grpc
from google.protobuf.struct_pb2 import Struct

from ambit.agent.channel import ControlPlane, describe
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.xds.protos import ca_pb2

METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_LIFETIME = 86_400
"""Seconds asked for (ztunnel's SECRET_TTL); the authority caps it."""
_TIMEOUT = 10.0


_BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""What a channel is not used after: who answers no more may be gone without a word."""


class Authority:
    """Signs through the control plane; one channel, made anew after a failure because roots rotate."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._channel: grpc.aio.Channel | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def sign(self, identity: Identity, csr: str) -> list[str]:
        """The PEM texts of the answer. Raises AmbitError with the authority's own words."""
        metadata = Struct()
        metadata.update({"ImpersonatedIdentity": identity.uri})
        request = ca_pb2.IstioCertificateRequest(csr=csr, validity_duration=_LIFETIME, metadata=metadata)
        headers = tuple(self._control.metadata().items())
        channel = self._channel if self._channel is not None else self._control.channel()
        self._channel = channel
        call = channel.unary_unary(
            METHOD,
            request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
            response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
        )
        try:
            response = await call(request, metadata=headers, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as problem:
            if problem.code() in _BROKEN:
                self._leave(channel)
            raise AmbitError(describe(problem)) from problem
        return list(response.cert_chain)

    def _leave(self, channel: grpc.aio.Channel) -> None:
        """Other calls on it have their time, and no call that comes later waits for it."""
        is_in_use = self._channel is channel
        if not is_in_use:
            return
        self._channel = None
        task = asyncio.ensure_future(channel.close(_TIMEOUT))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        for task in self._leaving:
            task.cancel()
        if channel is not None:
            await channel.close()
