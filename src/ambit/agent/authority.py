"""The certificate service `istio.v1.auth.IstioCertificateService`, as a client."""

import asyncio
import logging
import re

import grpc
from google.protobuf.struct_pb2 import Struct

from ambit.agent.channel import ControlPlane, describe
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.xds.protos import ca_pb2

_log = logging.getLogger("ambit.certificates")
METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
LIFETIME = 86_400.0
"""Seconds that certificates are requested for, unless a setting says otherwise (ztunnel's SECRET_TTL). Our control
plane signs for less where less is allowed; istiod refuses, and names its maximum."""
_TIMEOUT = 10.0
_MAXIMUM = re.compile(r"max allowed TTL ((?:[0-9]+(?:\.[0-9]+)?(?:h|m(?!s)|s|ms))+)")
_PART = re.compile(r"([0-9.]+)(h|ms|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


_BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""What a channel is not used after: who answers no more may be gone without a word."""


class Authority:
    """Signs through the control plane; one channel, made anew after a failure because roots rotate."""

    def __init__(self, control: ControlPlane, lifetime: float = LIFETIME) -> None:
        self._control = control
        self._lifetime = lifetime
        self._channel: grpc.aio.Channel | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def sign(self, identity: Identity, csr: str) -> list[str]:
        """The PEM texts of the answer. Raises AmbitError with the authority's own words."""
        requested = self._lifetime
        try:
            return await self._sign(identity, csr)
        except AmbitError as problem:
            maximum = parse_maximum(problem.message)
            if maximum is None or not 1.0 <= maximum < requested:
                raise
            if maximum < self._lifetime:
                _log.warning(
                    "the authority signs for %g s at most, not for %g s: requesting that from now on",
                    maximum,
                    requested,
                )
                self._lifetime = maximum
        return await self._sign(identity, csr)

    async def _sign(self, identity: Identity, csr: str) -> list[str]:
        metadata = Struct()
        metadata.update({"ImpersonatedIdentity": identity.uri})
        lifetime = int(self._lifetime)
        request = ca_pb2.IstioCertificateRequest(csr=csr, validity_duration=lifetime, metadata=metadata)
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


def parse_maximum(refusal: str) -> float | None:
    """Seconds that an authority allows at most by its refusal of a longer lifetime (istiod's: "requested TTL 24h0m0s is
    greater than the max allowed TTL 1h0m0s"); None for any other refusal."""
    found = _MAXIMUM.search(refusal)
    if found is None:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(found[1]))
