"""The certificate service `istio.v1.auth.IstioCertificateService`, as a client."""

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


class Authority:
    """Signs through the control plane; one channel, made anew after a failure because roots rotate."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._channel: grpc.aio.Channel | None = None

    async def sign(self, identity: Identity, csr: str) -> list[str]:
        """The PEM texts of the answer. Raises AmbitError with the authority's own words."""
        metadata = Struct()
        metadata.update({"ImpersonatedIdentity": identity.uri})
        request = ca_pb2.IstioCertificateRequest(csr=csr, validity_duration=_LIFETIME, metadata=metadata)
        headers = tuple(self._control.metadata().items())
        if self._channel is None:
            self._channel = self._control.channel()
        call = self._channel.unary_unary(
            METHOD,
            request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
            response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
        )
        try:
            response = await call(request, metadata=headers, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as problem:
            if problem.code() is grpc.StatusCode.UNAVAILABLE:
                await self.close()
            raise AmbitError(describe(problem)) from problem
        return list(response.cert_chain)

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
