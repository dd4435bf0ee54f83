"""What the mesh trusts and who signs, and how one authority follows another without a refused handshake.

Pure. The state goes STEADY -> SPREADING -> RENEWING -> STEADY:

1. SPREADING: the roots of the new authority are trusted beside those of the old one, which still signs.
2. RENEWING: the new one signs, both are trusted; every node gets new certificates.
3. STEADY: only the new one's roots are trusted.

A step is taken when every node has acknowledged what holds now, or when the longest life of a certificate has passed
since it began: what has not answered by then holds no valid certificate any more, or took the roots along with a new
one. A node acknowledges a trust when its proxy has it and all its certificates are from the signer it names.
"""

import datetime as dt
import enum
import hashlib
from typing import Self

import msgspec

from ambit.ca.authority import AuthorityFiles
from ambit.ca.bundle import certificates, joined
from ambit.ca.revocation import assembled


class Phase(enum.StrEnum):
    STEADY = "steady"
    SPREADING = "spreading"
    RENEWING = "renewing"


class Trust(msgspec.Struct, frozen=True):
    """What nodes are told: roots and revocation lists (PEM), and the key identifier of who signs now."""

    roots: str
    revoked: str
    signer: str

    @property
    def digest(self) -> str:
        """A short name of exactly this."""
        return hashlib.sha256(f"{self.roots}\0{self.revoked}\0{self.signer}".encode()).hexdigest()[:16]


class TrustState(msgspec.Struct, frozen=True):
    """Where the mesh stands. `since` is when the phase, or the roots it spreads, began; `revision` counts what was
    written."""

    active: AuthorityFiles
    roots: str
    revoked: str
    phase: Phase
    since: dt.datetime
    revision: int = 0

    @classmethod
    def begin(cls, active: AuthorityFiles, now: dt.datetime) -> Self:
        """A mesh that knows one authority. Raises BadAuthority."""
        roots = joined(active.load().roots)
        return cls(active, roots, "", Phase.STEADY, now)

    def trust(self) -> Trust:
        return Trust(self.roots, self.revoked, self.active.load().signer)


class Wanted(msgspec.Struct, frozen=True):
    """What the operator asks for: an authority, and revocation lists (PEM)."""

    files: AuthorityFiles
    revoked: str = ""


def advance(state: TrustState, wanted: Wanted, *, settled: bool, now: dt.datetime) -> TrustState:
    """The next state, or the same. `settled` says whether all nodes have taken what holds, or its time is over.

    Raises BadAuthority and BadRevocation when the wanted cannot be; the state then stays as it is.
    """
    following = _followed(state, wanted, settled=settled, now=now)
    if not wanted.revoked.strip():
        return msgspec.structs.replace(following, revoked="")
    active, coming = following.active.load(), wanted.files.load()
    trusted = certificates(following.roots)
    between = [each for each in (*active.path, *coming.path) if each not in trusted]
    authorities = [*dict.fromkeys((*between, *trusted))]
    revoked = assembled(wanted.revoked, state.revoked, authorities, (active, coming), now)
    return msgspec.structs.replace(following, revoked=revoked)


def _followed(state: TrustState, wanted: Wanted, *, settled: bool, now: dt.datetime) -> TrustState:
    replace = msgspec.structs.replace
    same = wanted.files.same_signer(state.active)
    roots = wanted.files.load().roots
    match state.phase:
        case Phase.STEADY | Phase.SPREADING if same:
            # Only the list of roots was edited, or a rotation was taken back before anybody signed with it.
            if state.phase is Phase.STEADY and roots == state.roots and wanted.files == state.active:
                return state
            return TrustState(wanted.files, roots, state.revoked, Phase.STEADY, now, state.revision)
        case Phase.STEADY:
            return replace(state, roots=joined(state.roots, roots), phase=Phase.SPREADING, since=now)
        case Phase.SPREADING:
            union = joined(state.active.load().roots, roots)
            if union != state.roots:
                return replace(state, roots=union, since=now)
            if settled:
                return replace(state, active=wanted.files, phase=Phase.RENEWING, since=now)
        case Phase.RENEWING:
            if settled:
                final = wanted.files if same else state.active
                return TrustState(final, final.load().roots, state.revoked, Phase.STEADY, now, state.revision)
    return state
