"""Who is calling: a service-account token for our audience, reviewed by the API server, and the pod behind it.

Every failure to find out is a refusal.
"""

import hashlib
from collections.abc import Callable, Iterable

import grpc
import msgspec

from ambit.ca.issuance import Caller, check_caller
from ambit.control.identity.pods import PodIndex
from ambit.control.turns import FairSemaphore, Overloaded
from ambit.core.errors import AmbitError
from ambit.core.names import CA_TOKEN_AUDIENCE
from ambit.kube.client import Client, Object
from ambit.kube.resource import TOKEN_REVIEWS

REMEMBERED = 10.0
"""Seconds for which a reviewed token counts as reviewed; its pod is looked at every time."""
MAX_REMEMBERED = 4096
MAX_TOKEN = 16 * 1024
MAX_REVIEWS, REVIEWS_PER_ADDRESS, WAITING_PER_ADDRESS = 16, 4, 256
"""Reviews under way at once, those of one peer address, and calls of one address that wait for theirs: whoever can
reach the port can make the control plane call the API server, and each waiting call has a window of memory."""
_POD = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_NODE = "authentication.kubernetes.io/node-name"


class Refused(Exception):
    """A call is refused with this gRPC status and reason; what is known of the caller is kept for the log."""

    def __init__(self, status: grpc.StatusCode, reason: str, caller: Caller | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.caller = caller


class Authenticator:
    """Turns a call's metadata into its caller. `clock` is monotonic seconds.

    It reads no message: until a caller is authenticated, its call costs one HTTP/2 window.
    """

    def __init__(self, client: Client, pods: PodIndex, clock: Callable[[], float]) -> None:
        self._client = client
        self._pods = pods
        self._clock = clock
        self._reviews = FairSemaphore(MAX_REVIEWS, REVIEWS_PER_ADDRESS, WAITING_PER_ADDRESS)
        self._reviewed: dict[bytes, tuple[float, Caller]] = {}
        self.on_stranger: Callable[[str], None] = lambda _: None
        """Called with the other end of a connection on which a call showed no valid token."""

    async def caller(self, metadata: Iterable[tuple[str, str | bytes]], peer: str = "") -> Caller:
        """The caller, with the node its pod was found to run on. `peer` is the other end of its connection, as gRPC
        writes it. Raises Refused."""
        try:
            caller = await self._review(_bearer(metadata), peer.rpartition(":")[0])
        except Refused as refusal:
            if refusal.status is grpc.StatusCode.UNAUTHENTICATED:
                self.on_stranger(peer)
            raise
        pod = self._pods.pod(caller.namespace, caller.pod) if caller.pod else None
        if caller.pod and check_caller(caller, pod) is not None:
            # The watch may be behind a pod that has just been made.
            try:
                pod = await self._pods.live_pod(caller.namespace, caller.pod)
            except (AmbitError, msgspec.MsgspecError) as error:
                raise Refused(
                    grpc.StatusCode.UNAVAILABLE, f"the caller's pod cannot be looked up: {error}", caller
                ) from None
        reason = check_caller(caller, pod)
        if reason is not None or pod is None:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, reason or "no pod", caller)
        return msgspec.structs.replace(caller, node=pod.node)

    async def _review(self, token: str, address: str) -> Caller:
        key = hashlib.sha256(token.encode()).digest()
        known = self._remembered(key)
        if known is not None:
            return known
        try:
            async with self._reviews.hold(address):
                # Another call with this token may have waited for the same.
                return self._remembered(key) or await self._reviewed_now(key, token)
        except Overloaded:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{address} has {WAITING_PER_ADDRESS} calls whose tokens are not reviewed yet; try again later",
            ) from None

    def _remembered(self, key: bytes) -> Caller | None:
        known = self._reviewed.get(key)
        return known[1] if known is not None and self._clock() - known[0] < REMEMBERED else None

    async def _reviewed_now(self, key: bytes, token: str) -> Caller:
        now = self._clock()
        review = {"spec": {"token": token, "audiences": [CA_TOKEN_AUDIENCE]}}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", **review}
        try:
            answer = await self._client.create(TOKEN_REVIEWS, body)
        except AmbitError as error:
            raise Refused(
                grpc.StatusCode.UNAVAILABLE, f"the token cannot be reviewed: {error.message}"
            ) from None
        caller = read_review(answer)
        if len(self._reviewed) >= MAX_REMEMBERED:
            self._reviewed = {
                each: (then, who) for each, (then, who) in self._reviewed.items() if now - then < REMEMBERED
            }
        if len(self._reviewed) < MAX_REMEMBERED:
            self._reviewed[key] = (now, caller)
        return caller


def read_review(review: Object) -> Caller:
    """The caller that a TokenReview's status describes. Raises Refused unless it is a service account of ours."""
    status = review.get("status") or {}
    if status.get("authenticated") is not True:
        raise _unauthenticated(
            f"the token is not valid: {status.get('error') or 'refused by the API server'}"
        )
    if CA_TOKEN_AUDIENCE not in (status.get("audiences") or ()):
        raise _unauthenticated(f"the token is not for audience {CA_TOKEN_AUDIENCE}")
    user = status.get("user") or {}
    parts = str(user.get("username") or "").split(":")
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or not all(parts):
        raise _unauthenticated("the token is not a service account's")
    extra = user.get("extra") or {}

    def first(key: str) -> str:
        values = extra.get(key) or [""]
        return str(values[0])

    return Caller(parts[2], parts[3], first(_POD), first(_POD_UID), first(_NODE))


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        raise _unauthenticated("the call carries no single bearer token")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip() or len(token) > MAX_TOKEN:
        raise _unauthenticated("the call carries no bearer token")
    return token.strip()


def _unauthenticated(reason: str) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, reason)
