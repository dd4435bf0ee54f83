"""Somebody who signs tokens."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
HOUR = 3600


class Issuer:
    """Signs with its newest key; `jwks` has all of them but those that were taken out."""

    def __init__(self, name: str = "https://issuer.example", *, algorithm: str = "RS256") -> None:
        self.name = name
        self.algorithm = algorithm
        self._keys: dict[str, PrivateKey] = {}
        self._count = 0
        self.rotate()

    def rotate(self, *, keep: bool = False) -> None:
        """A new key signs from now on; with `keep` the former ones are still published."""
        if not keep:
            self._keys.clear()
        self._count += 1
        self._keys[f"key-{self._count}"] = _new_key(self.algorithm)

    @property
    def jwks(self) -> str:
        return json.dumps({"keys": [_public(each, kid, self.algorithm) for kid, each in self._keys.items()]})

    def token(self, *, kid: str | None = None, lifetime: float = HOUR, **claims: Any) -> str:
        """A token that says these claims beside `iss`, `sub`, `iat` and `exp`; a claim of None is left out."""
        newest = list(self._keys)[-1]
        now = dt.datetime.now(dt.UTC).timestamp()
        said = {"iss": self.name, "sub": "anna", "iat": int(now), "exp": int(now + lifetime), **claims}
        payload = {key: value for key, value in said.items() if value is not None}
        return jwt.encode(
            payload, self._keys[newest], algorithm=self.algorithm, headers={"kid": kid or newest}
        )


def unsigned(claims: Mapping[str, Any]) -> str:
    """A token of the algorithm `none`."""
    return jwt.encode(dict(claims), None, algorithm="none")  # type: ignore[arg-type]


def _new_key(algorithm: str) -> PrivateKey:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(65537, 2048)


def _public(key: PrivateKey, kid: str, algorithm: str) -> dict[str, Any]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        fields = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        fields = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        fields = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**fields, "kid": kid, "alg": algorithm, "use": "sig"}
