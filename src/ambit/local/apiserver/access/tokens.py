"""ServiceAccount tokens: issued by TokenRequest, judged on every request. ES256 JWTs with the claims
Kubernetes uses.

A token is refused once its account or the pod it is bound to is gone (same uid required).
"""

import hashlib
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.local.apiserver.storage.store import Json, Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
MIN_SECONDS = 600
DEFAULT_SECONDS = 3600
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_UID = "authentication.kubernetes.io/node-uid"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"


class User(msgspec.Struct, frozen=True):
    """Who asks. `extra` is what TokenReview reports besides."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = {}


class TokenRefused(Exception):
    """Why a token is not valid, one sentence."""


class Tokens:
    """Issues and judges tokens with one key."""

    def __init__(self, key_file: Path, store: Store) -> None:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._public = key.public_key()
        self._store = store
        public = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = hashlib.sha256(public).hexdigest()[:32]

    def issue(
        self,
        account: Json,
        audiences: list[str],
        seconds: int,
        now: int,
        *,
        bound: Json | None = None,
        token_id: str = "",
    ) -> str:
        """A token for the ServiceAccount object; `bound` is the Pod (or Secret, Node) object it lives
        with."""
        metadata = account["metadata"]
        claims: dict[str, Any] = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if bound is not None:
            reference = {"name": bound["metadata"]["name"], "uid": bound["metadata"]["uid"]}
            claims[bound["kind"].lower()] = reference
            if bound["kind"] == "Pod" and (node := self._node(bound)):
                claims["node"] = node
        payload = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": token_id,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "kubernetes.io": claims,
        }
        return jwt.encode(payload, self._key, algorithm="ES256", headers={"kid": self.key_id})

    def _node(self, pod: Json) -> dict[str, str]:
        name = (pod.get("spec") or {}).get("nodeName")
        if not name:
            return {}
        entry = self._store.get("nodes", "", name)
        return {"name": name, "uid": entry.uid} if entry else {"name": name}

    def judge(self, token: str, audiences: list[str]) -> tuple[User, list[str]]:
        """The user and the audiences that both sides share. Raises TokenRefused."""
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                issuer=ISSUER,
                audience=audiences,
                leeway=5,
                options={"require": ["exp", "sub", "aud"]},
            )
        except (jwt.PyJWTError, RecursionError) as error:
            raise TokenRefused(str(error)) from error
        given = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        return self._user(claims), [one for one in audiences if one in given]

    def _user(self, claims: dict[str, Any]) -> User:
        mine = claims.get("kubernetes.io") or {}
        namespace, account = mine.get("namespace", ""), mine.get("serviceaccount") or {}
        name = account.get("name", "")
        entry = self._store.get("serviceaccounts", namespace, name)
        if entry is None or entry.uid != account.get("uid"):
            raise TokenRefused(f"service account {namespace}/{name} does not exist any more")
        extra: dict[str, list[str]] = {}
        if claims.get("jti"):
            extra[_CREDENTIAL] = [f"JTI={claims['jti']}"]
        for kind, storage in (("pod", "pods"), ("secret", "secrets")):
            bound = mine.get(kind)
            if bound:
                found = self._store.get(storage, namespace, bound["name"])
                if found is None or found.uid != bound["uid"]:
                    raise TokenRefused(f"{kind} {namespace}/{bound['name']} does not exist any more")
        if "pod" in mine:
            extra |= {_POD_NAME: [mine["pod"]["name"]], _POD_UID: [mine["pod"]["uid"]]}
        if "node" in mine:
            extra[_NODE_NAME] = [mine["node"]["name"]]
            if mine["node"].get("uid"):
                extra[_NODE_UID] = [mine["node"]["uid"]]
        return service_account(namespace, name, entry.uid, extra)

    def keys(self) -> dict[str, Any]:
        """The JWKS document."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self._public, as_dict=True)
        return {"keys": [{**key, "use": "sig", "kid": self.key_id, "alg": "ES256"}]}

    def configuration(self) -> dict[str, Any]:
        """The OIDC discovery document."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


def service_account(namespace: str, name: str, uid: str, extra: dict[str, list[str]]) -> User:
    groups = (
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    )
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)
