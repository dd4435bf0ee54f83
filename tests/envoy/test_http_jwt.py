"""The key that stands for none."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ec

from ambit.envoy.http.jwt import NOBODYS_KEY

SENTENCE = "ambit: nobody has the private key"


def test_nobody_made_nobodys_key() -> None:
    """It is the first point of the curve whose x is the hash of a sentence and a number, and the smaller y."""
    (key,) = json.loads(NOBODYS_KEY)["keys"]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(key[each] + "="), "big") for each in ("x", "y"))
    curve = ec.SECP256R1()
    for number in range(10):
        digest = hashlib.sha256(f"{SENTENCE} {number}".encode()).digest()
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x02" + digest).public_numbers()
        except ValueError:
            continue
        prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
        assert (x, y) == (point.x, min(point.y, prime - point.y))
        return
    raise AssertionError("no point")
