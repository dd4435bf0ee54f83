"""Revocation lists (`ca-crl.pem`): checked before a proxy gets them.

Envoy wants a list of every authority on a peer's path, root included, as soon as it has one list, and a list whose
time is over refuses everybody. So lists are used when they are complete and valid, or not at all. For an authority
whose key we hold a missing list is made: empty.
"""

import datetime as dt
import re
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from ambit.ca.authority import Authority
from ambit.core.errors import AmbitError

_BLOCK = re.compile(r"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class BadRevocation(AmbitError):
    """Revocation lists that would stop the mesh."""


def lists(text: str) -> list[x509.CertificateRevocationList]:
    """The lists of a PEM text. Raises BadRevocation when one is damaged or other text is in between."""
    blocks = _BLOCK.findall(text)
    if re.sub(r"(?m)^#.*$", "", _BLOCK.sub("", text)).strip():
        raise BadRevocation("ca-crl.pem has something in it that is no revocation list")
    try:
        return [x509.load_pem_x509_crl(block.encode()) for block in blocks]
    except ValueError as error:
        raise BadRevocation(f"a revocation list cannot be read: {error}") from None


def assembled(
    wanted: str,
    held: str,
    authorities: Iterable[x509.Certificate],
    own: Sequence[Authority],
    now: dt.datetime,
) -> str:
    """A list of each authority, for proxies: the newest wanted one, else the one that is held, else one of our own.

    Lists of others are left out. Raises BadRevocation when one is missing, not yet or no longer valid.
    """
    given, former = lists(wanted), lists(held)
    found: list[str] = []
    for authority in authorities:
        theirs = [each for each in given if _is_of(each, authority)]
        theirs = theirs or [each for each in former if _is_of(each, authority)]
        if theirs:
            newest = max(theirs, key=lambda each: each.last_update_utc)
            _check_time(newest, now)
            found.append(newest.public_bytes(serialization.Encoding.PEM).decode())
            continue
        key = next((each for each in own if each.is_certificate(authority)), None)
        if key is None:
            raise BadRevocation(
                f"there is no revocation list of {_name(authority)}",
                "ca-crl.pem must hold a list of every authority between workloads and roots, roots included",
            )
        found.append(key.empty_list(now))
    return "".join(sorted(found))


def ends(text: str) -> dt.datetime | None:
    """When the first of these lists is no longer valid; None without one that says so."""
    return min((each.next_update_utc for each in lists(text) if each.next_update_utc), default=None)


def revoked_in(text: str) -> set[tuple[bytes, int]]:
    """Issuer and serial number of each certificate that these lists revoke. Raises BadRevocation."""
    return {(each.issuer.public_bytes(), entry.serial_number) for each in lists(text) for entry in each}


def _is_of(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if revoked.issuer != authority.subject:
        return False
    try:
        return revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, InvalidSignature):
        return False


def _check_time(revoked: x509.CertificateRevocationList, now: dt.datetime) -> None:
    end = revoked.next_update_utc
    if end is not None and end <= now:
        raise BadRevocation(
            f"the revocation list of {revoked.issuer.rfc4514_string()} ended at {end:%Y-%m-%d %H:%M} UTC",
            "put a newer one into ca-crl.pem",
        )
    if revoked.last_update_utc > now:
        raise BadRevocation(
            f"the revocation list of {revoked.issuer.rfc4514_string()} begins at"
            f" {revoked.last_update_utc:%Y-%m-%d %H:%M} UTC",
            "compare the clocks of its maker and of the control plane",
        )


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "an authority without a name"
