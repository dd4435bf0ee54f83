"""Key sets (JWKS, RFC 7517) as far as tokens are verified by them: public keys of RSA, of elliptic curves and Ed25519.

An Envoy takes no set without a good key, and a set may come from anywhere, so what is given on is made anew from the
keys that are understood.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MOST_KEYS = 100
LONGEST_NAME = 1024
_RSA_BITS = range(2048, 8193)
"""RFC 7518 section 3.3 asks for 2048 bits at least; Envoy's library (BoringSSL) takes no more than 8192."""
_RSA_EXPONENT_BITS = 33
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": ("ES256", 32), "P-384": ("ES384", 48), "P-521": ("ES512", 66)}
_ED25519_LENGTH = 32


class BadKeys(ValueError):
    """Says why no token can be verified with a text."""


def key_set(text: str | bytes) -> str:
    """The set with its good keys only, in their order. Raises BadKeys when there is none."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadKeys("they are no JSON") from error
    keys = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(keys, list):
        raise BadKeys("there is no list `keys` in them (RFC 7517)")
    found = [good for each in keys[:MOST_KEYS] for good in _good(each)]
    if not found:
        raise BadKeys(
            "none of them is a public key of RSA (2048 to 8192 bits), P-256, P-384, P-521 or Ed25519"
        )
    return json.dumps({"keys": found}, separators=(",", ":"))


def _good(key: Any) -> Iterator[dict[str, str]]:
    """The key, if it is one: only the fields that matter."""
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        return
    reader = _READERS.get(str(key.get("kty")))
    named = {field: key[field] for field in ("kid", "alg") if field in key}
    if reader is None or not all(
        isinstance(each, str) and len(each) <= LONGEST_NAME for each in named.values()
    ):
        return
    try:
        yield {"kty": str(key["kty"]), **named, **reader(key)}
    except (ValueError, binascii.Error):
        return


def _rsa(key: Mapping[str, Any]) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import rsa

    n, e = (int.from_bytes(_bytes(key, each), "big") for each in ("n", "e"))
    _check(n.bit_length() in _RSA_BITS and e.bit_length() <= _RSA_EXPONENT_BITS)
    _check(key.get("alg", "RS256") in _RSA)
    rsa.RSAPublicNumbers(e, n).public_key()
    return {"n": key["n"], "e": key["e"]}


def _curve(key: Mapping[str, Any]) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec

    name = str(key.get("crv"))
    _check(name in _CURVES)
    algorithm, length = _CURVES[name]
    _check(key.get("alg", algorithm) == algorithm)
    x, y = (_bytes(key, each) for each in ("x", "y"))
    _check(len(x) == len(y) == length)
    curves: dict[str, ec.EllipticCurve] = {
        "P-256": ec.SECP256R1(),
        "P-384": ec.SECP384R1(),
        "P-521": ec.SECP521R1(),
    }
    ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curves[name]
    ).public_key()
    return {"crv": name, "x": key["x"], "y": key["y"]}


def _edwards(key: Mapping[str, Any]) -> dict[str, str]:
    _check(key.get("crv") == "Ed25519" and key.get("alg", "EdDSA") == "EdDSA")
    _check(len(_bytes(key, "x")) == _ED25519_LENGTH)
    return {"crv": "Ed25519", "x": key["x"]}


_READERS: dict[str, Callable[[Mapping[str, Any]], dict[str, str]]] = {
    "RSA": _rsa,
    "EC": _curve,
    "OKP": _edwards,
}


def _bytes(key: Mapping[str, Any], field: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2)."""
    text = key.get(field)
    _check(isinstance(text, str) and text.isascii() and "=" not in text)
    return base64.b64decode(str(text) + "=" * (-len(str(text)) % 4), altchars=b"-_", validate=True)


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError
