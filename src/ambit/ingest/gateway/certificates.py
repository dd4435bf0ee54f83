"""Roots of trust that objects refer to: ConfigMaps with PEM under `ca.crt` (Gateway API, `caCertificateRefs`, core)."""

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ambit.objects.backend_policies import CertificateRef
from ambit.objects.kube import ConfigMap

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for certificates and keys that it cannot read. Not all of it is a ValueError."""
Reason = Literal["InvalidCACertificateRef", "InvalidKind"]


class BadReference(msgspec.Struct, frozen=True):
    """Why a reference gives no root, as `ResolvedRefs` says it."""

    reason: Reason
    text: str


def roots_of(
    references: Iterable[CertificateRef], namespace: str, known: Callable[[str], ConfigMap | None]
) -> tuple[str, tuple[BadReference, ...]]:
    """All roots (PEM) that can be had, and what is wrong with the other references. `known` finds a ConfigMap by
    `<namespace>/<name>`."""
    found: list[str] = []
    wrong: list[BadReference] = []
    for each in references:
        if (each.group, each.kind) != ("", "ConfigMap"):
            kind = f"{each.kind}.{each.group}" if each.group else each.kind
            wrong.append(BadReference("InvalidKind", f"{kind} {each.name}: roots are in ConfigMaps"))
            continue
        key = f"{namespace}/{each.name}"
        given = known(key)
        if given is None:
            wrong.append(BadReference("InvalidCACertificateRef", f"ConfigMap {key} does not exist"))
        elif problem := problem_of_roots(given.roots):
            wrong.append(BadReference("InvalidCACertificateRef", f"ConfigMap {key}, ca.crt: {problem}"))
        else:
            found.append(given.roots.strip())
    return "".join(f"{each}\n" for each in dict.fromkeys(found)), tuple(wrong)


def problem_of_roots(pem: str) -> str:
    """Why these are no certificates; empty when they are."""
    if not pem.strip():
        return "it is empty"
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except UNREADABLE:
        return "it holds no certificates that can be read"
    return ""
