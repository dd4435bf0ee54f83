"""`tls.options` of a listener that ends TLS: what it asks of clients' TLS, beyond its certificates.

- `gateway.istio.io/tls-cipher-suites`: suites of TLS 1.2, with commas between them, in order of preference; Istio's
  names (`security.ValidCipherSuites`). Those of TLS 1.3 cannot be chosen, in Envoy as in Istio.
- `gateway.istio.io/tls-terminate-mode`: `SIMPLE`, as without it, or `MUTUAL`: clients of an HTTPS listener show a
  certificate of a root in `ca.crt` of its Secrets. The Gateway API's own way is `spec.tls.frontend` of the Gateway.
- `ambit.io/tls-min-version`: `1.2`, as without it, or `1.3`.
- `ambit.io/http3`: with `true` an HTTPS listener takes HTTP/3, too.

An option that is not known, or not with this value, refuses the listener: it may have been meant to keep somebody out.
Istio leaves out what it does not know.
"""

from collections.abc import Mapping
from itertools import chain

from ambit.model.proxy import TlsTerms

CIPHER_SUITES = "gateway.istio.io/tls-cipher-suites"
TERMINATE_MODE = "gateway.istio.io/tls-terminate-mode"
MIN_VERSION = "ambit.io/tls-min-version"
SUITES = frozenset(
    {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
    }
)
"""Of TLS 1.2, by the names that OpenSSL has for them."""
HTTP3 = "ambit.io/http3"
_SIMPLE, _MUTUAL = "SIMPLE", "MUTUAL"
_VERSIONS = {"1.2": False, "1.3": True}
"""Values of `MIN_VERSION`, and whether TLS 1.3 alone is left."""


def terms_of(options: Mapping[str, str]) -> tuple[TlsTerms, str]:
    """What the options of a listener come to, and why they cannot be had; empty when they can."""
    suites = tuple(dict.fromkeys(each.strip() for each in options.get(CIPHER_SUITES, "").split(",")))
    newest = _VERSIONS.get(options.get(MIN_VERSION, "1.2"), False)
    refusals = chain(_unknown(options), _suites(options, suites, newest), _values(options))
    http3 = options.get(HTTP3) == "true"
    return TlsTerms(suites if CIPHER_SUITES in options else (), newest, http3), "; ".join(refusals)


def asks_clients(options: Mapping[str, str]) -> bool:
    """Whether clients of the listener must show a certificate, by its own word."""
    return options.get(TERMINATE_MODE) == _MUTUAL


def _unknown(options: Mapping[str, str]) -> list[str]:
    known = (CIPHER_SUITES, TERMINATE_MODE, MIN_VERSION, HTTP3)
    return [f"{each} is not known, only {', '.join(known)}" for each in options if each not in known]


def _suites(options: Mapping[str, str], suites: tuple[str, ...], newest: bool) -> list[str]:
    if CIPHER_SUITES not in options:
        return []
    unknown = ", ".join(repr(each) for each in suites if each not in SUITES)
    bad = [f"{CIPHER_SUITES}: {unknown}: no suite of TLS 1.2 that can be had"] if unknown else []
    if newest:
        bad.append(f"{CIPHER_SUITES} is about TLS 1.2, which {MIN_VERSION} leaves out")
    return bad


def _values(options: Mapping[str, str]) -> list[str]:
    found = []
    mode, version = options.get(TERMINATE_MODE, _SIMPLE), options.get(MIN_VERSION, "1.2")
    if mode not in (_SIMPLE, _MUTUAL):
        found.append(f"{TERMINATE_MODE}: {mode!r} is neither {_SIMPLE} nor {_MUTUAL}")
    if version not in _VERSIONS:
        found.append(f"{MIN_VERSION}: {version!r} is none of {', '.join(_VERSIONS)}")
    if options.get(HTTP3, "true") not in ("true", "false"):
        found.append(f"{HTTP3}: {options[HTTP3]!r} is neither true nor false")
    return found
