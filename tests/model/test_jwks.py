"""Which keys are taken from a set."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from ambit.model.jwks import BadKeys, key_set
from tests.tokens import Issuer

RSA = json.loads(Issuer().jwks)["keys"][0]
EC = json.loads(Issuer(algorithm="ES256").jwks)["keys"][0]
ED = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "ed"}
"""RFC 8037, appendix A.2."""


def kept(*keys: Any) -> list[str]:
    return [each["kid"] for each in json.loads(key_set(json.dumps({"keys": list(keys)})))["keys"]]


def test_good_keys_are_kept_in_order_without_what_does_not_matter() -> None:
    given = [{**RSA, "kid": "a", "x5c": ["…"], "key_ops": []}, {**EC, "kid": "b"}, ED]
    assert kept(*given) == ["a", "b", "ed"]
    first = json.loads(key_set(json.dumps({"keys": given})))["keys"][0]
    assert first.keys() == {"kty", "kid", "alg", "n", "e"}


def small(bits: int) -> str:
    from jwt.algorithms import RSAAlgorithm

    return str(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, bits).public_key(), as_dict=True)["n"])


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({**RSA, "n": small(1024)}, id="short"),
        pytest.param({**RSA, "use": "enc"}, id="for another use"),
        pytest.param({**RSA, "alg": "HS256"}, id="another algorithm"),
        pytest.param({**RSA, "n": RSA["n"] + "="}, id="padded"),
        pytest.param({**RSA, "e": "AA"}, id="exponent 0"),
        pytest.param({**RSA, "e": None}, id="no exponent"),
        pytest.param({**EC, "x": EC["y"]}, id="not on the curve"),
        pytest.param({**EC, "alg": "ES384"}, id="another curve's algorithm"),
        pytest.param({**EC, "crv": "secp256k1"}, id="another curve"),
        pytest.param({**ED, "x": "AAAA"}, id="too few bytes"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, id="a secret"),
        pytest.param({"kty": ["RSA"]}, id="a list as kind"),
        pytest.param({**RSA, "kid": 7}, id="a number as name"),
        pytest.param({**RSA, "kid": "k" * 2000}, id="a long name"),
        pytest.param("RSA", id="a text"),
        pytest.param(None, id="null"),
    ],
)
def test_other_keys_are_left_out(bad: Any) -> None:
    assert kept(bad, ED) == ["ed"]
    with pytest.raises(BadKeys):
        kept(bad)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": {}}', "[" * 100_000, '{"keys": [', "\ud800", b"\xff"]
)
def test_what_is_no_set(text: str | bytes) -> None:
    with pytest.raises(BadKeys):
        key_set(text)
