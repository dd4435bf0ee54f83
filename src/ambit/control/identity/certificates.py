"""The certificate service (`istio.v1.auth.IstioCertificateService`), behind the issuance rules.

Each refusal is one log line with caller, identity and reason, and is counted by reason class.
"""

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

import grpc
import msgspec
from google.protobuf import message

from ambit.ca.authority import Authority
from ambit.ca.issuance import Caller, may_issue
from ambit.ca.limit import RateLimit
from ambit.ca.request import MAX_BYTES, RefusedRequest, SigningRequest, parse_request
from ambit.control.identity.callers import Authenticator, Refused
from ambit.control.identity.first_message import FirstMessages
from ambit.control.identity.pods import PodIndex
from ambit.control.metrics import Counters
from ambit.control.settings import Settings
from ambit.core.errors import AmbitError
from ambit.daemon.logs import event
from ambit.xds.protos import ca_pb2 as pb

log = logging.getLogger("ambit.control.certificates")

SERVICE = "istio.v1.auth.IstioCertificateService"
METHOD = "CreateCertificate"
ISSUED = "ambit_certificates_issued_total"
REFUSED = "ambit_certificates_refused_total"
IMPERSONATED = "ImpersonatedIdentity"
"""Request metadata: the identity that a node agent asks for, as ztunnel says it beside the request itself."""


class Asked(msgspec.Struct):
    """What is known of a call so far, for the log."""

    caller: Caller | None = None
    identity: str = ""


class CertificateService:
    """`authority` is who signs now, `wall` the time of day, `clock` monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        authority: Callable[[], Authority],
        authenticator: Authenticator,
        pods: PodIndex,
        counters: Counters,
        messages: FirstMessages,
        *,
        clock: Callable[[], float],
        wall: Callable[[], dt.datetime],
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._authenticator = authenticator
        self._pods = pods
        self._counters = counters
        self._clock = clock
        self._wall = wall
        self._messages = messages
        self._agent_limit = RateLimit(settings.certificate_rate, settings.certificate_burst)
        self._pod_limit = RateLimit(settings.pod_certificate_rate, settings.pod_certificate_burst)
        self.on_caller: Callable[[str], None] = lambda _: None
        """Called with the other end of a connection whose caller got a certificate."""
        counters.declare(ISSUED, "Workload certificates issued.")
        counters.declare(REFUSED, "Certificate requests refused, by gRPC status.")

    async def create(self, context: Any) -> bytes:
        """The method on serialised messages, of which the one that a unary call has is read once the caller is
        authenticated. `context` is a `grpc.aio.ServicerContext`."""
        asked = Asked()
        try:
            chain = await self._issue(asked, context)
        except Refused as refusal:
            self._note(asked, refusal)
            await context.abort(refusal.status, refusal.reason)
            raise
        self.on_caller(context.peer())
        self._counters.count(ISSUED)
        event(log, logging.INFO, "certificate issued", identity=asked.identity, caller=asked.caller)
        return pb.IstioCertificateResponse(cert_chain=chain).SerializeToString()

    async def _issue(self, asked: Asked, context: Any) -> list[str]:
        metadata = context.invocation_metadata() or ()
        caller = asked.caller = await self._authenticator.caller(metadata, context.peer())
        self._check_rate(caller)
        request, lifetime = _read(await self._messages.read(caller, context, MAX_BYTES))
        asked.identity = request.identity.uri
        await self._permit(caller, request)
        try:
            return self._authority().issue(request.identity, request.public_key, self._wall(), lifetime)
        except AmbitError as error:
            raise Refused(grpc.StatusCode.INTERNAL, error.message) from None

    def _check_rate(self, caller: Caller) -> None:
        """Raises Refused. Node agents have a bucket per node, which no other pod of the node takes from; each other pod
        has its own."""
        is_agent = (caller.namespace, caller.service_account) in self._settings.node_accounts
        limit, key, whose = (
            (self._agent_limit, caller.node, f"the agent of node {caller.node}")
            if is_agent
            else (self._pod_limit, caller.pod_uid, f"pod {caller.namespace}/{caller.pod}")
        )
        if not limit.allow(key, self._clock()):
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{whose} requests certificates faster than {limit.rate:g} per second; try again later",
            )

    async def _permit(self, caller: Caller, request: SigningRequest) -> None:
        identity = request.identity
        domains, accounts = self._settings.trust_domains, self._settings.node_accounts
        watched = self._pods.of_account(identity.namespace, identity.service_account)
        if may_issue(caller, identity, watched, trust_domains=domains, node_accounts=accounts) is None:
            return
        try:
            live = await self._pods.live_of_node(identity.namespace, caller.node)
        except (AmbitError, msgspec.MsgspecError) as error:
            raise Refused(
                grpc.StatusCode.UNAVAILABLE, f"the pods of the node cannot be looked up: {error}"
            ) from None
        reason = may_issue(caller, identity, live, trust_domains=domains, node_accounts=accounts)
        if reason is not None:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, reason)

    def _note(self, asked: Asked, refusal: Refused) -> None:
        status = refusal.status.name.lower()
        self._counters.count(REFUSED, status=status)
        event(
            log,
            logging.WARNING,
            "certificate refused",
            reason=refusal.reason,
            caller=asked.caller or refusal.caller or "unknown",
            identity=asked.identity or "unknown",
            status=status,
        )


def _read(data: bytes) -> tuple[SigningRequest, dt.timedelta]:
    try:
        asked = pb.IstioCertificateRequest.FromString(data)
        request = parse_request(asked.csr)
    except (message.DecodeError, RefusedRequest) as error:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
    if IMPERSONATED in asked.metadata.fields:
        named = asked.metadata.fields[IMPERSONATED].string_value
        if named != request.identity.uri:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the call asks for {named!r}, the signing request for {request.identity.uri!r}",
            )
    seconds = min(max(asked.validity_duration, 0), 10 * 365 * 86400)
    return request, dt.timedelta(seconds=seconds)
