"""What rules about tokens make of a request on its way, and what is said of it; from configuration alone. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from ambit.insight.ruling import DENIED, Ruling
from ambit.model.jwt import TokenPolicy
from ambit.policy.requests import Request
from ambit.policy.tokens import check


class Shown(msgspec.Struct, frozen=True):
    """What a client shows beside its request: the URIs in its certificate (None: it has none). `now` is the time that
    its tokens are looked at, in seconds since 1970; None for any."""

    certificate: tuple[str, ...] | None = None
    now: float | None = None


NOTHING = Shown()


class Borne(msgspec.Struct, frozen=True):
    """`request` as policies see it, with the claims of its token. `refused` is why it gets no further; `said` what its
    token has to do with it."""

    request: Request
    refused: str = ""
    said: str = ""

    def ruling(self, identity: str = "") -> Ruling:
        """Of one that is refused."""
        return Ruling(DENIED, self.refused, identity=identity)


def borne(policies: Iterable[TokenPolicy], request: Request, shown: Shown) -> Borne:
    """What these rules make of it."""
    found: Sequence[TokenPolicy] = sorted(policies, key=lambda each: each.key)
    for each in found:
        if each.is_closed:
            return Borne(request, f"{each.origin} cannot be read, so no request passes")
    checked = check((rule for each in found for rule in each.rules), request, shown.now)
    if checked.problem:
        named = ", ".join(str(each.origin) for each in found)
        return Borne(request, f"its token is not valid by {named}: {checked.problem}")
    if not checked.request.claims:
        return Borne(checked.request)
    said = f"that of {checked.issuer or '(no issuer)'} is valid if its signature is, which is not tried here"
    return Borne(checked.request, said=said)
