"""Kinds that are questions, not objects: TokenRequest, TokenReview, access reviews, SelfSubjectReview."""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ambit.local.apiserver import clock
from ambit.local.apiserver.access.rbac import Action, Authorizer
from ambit.local.apiserver.access.tokens import (
    DEFAULT_SECONDS,
    ISSUER,
    MIN_SECONDS,
    TokenRefused,
    Tokens,
    User,
)
from ambit.local.apiserver.failures import bad_request, forbidden, invalid, not_found
from ambit.local.apiserver.metadata import invalid_value
from ambit.local.apiserver.storage.store import Json, Store

_BOUND = {"Pod": "pods", "Secret": "secrets"}


class Reviews:
    """Answers reviews. `answer` returns None for kinds that are stored."""

    def __init__(self, store: Store, tokens: Tokens, authorizer: Authorizer) -> None:
        self._store = store
        self._tokens = tokens
        self._authorizer = authorizer
        self._kinds: dict[str, Callable[[Json, User], Json]] = {
            "tokenreviews": self._token_review,
            "selfsubjectreviews": self._self_review,
            "selfsubjectaccessreviews": self._self_access,
            "subjectaccessreviews": self._access,
            "localsubjectaccessreviews": self._access,
            "selfsubjectrulesreviews": self._rules,
        }

    def answer(self, plural: str, body: Json, user: User) -> Json | None:
        found = self._kinds.get(plural)
        if found is None:
            return None
        body.setdefault("metadata", {})["creationTimestamp"] = None
        return found(body, user)

    def request_token(self, namespace: str, name: str, body: Json) -> Json:
        """The `serviceaccounts/token` subresource. Raises ApiFailure 400, 403, 404, 422."""
        entry = self._store.get("serviceaccounts", namespace, name)
        if entry is None:
            raise not_found("serviceaccounts", "", name)
        spec = body.setdefault("spec", {})
        seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
        if not isinstance(seconds, int) or seconds < MIN_SECONDS:
            cause = invalid_value(
                "spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
            )
            raise invalid("TokenRequest", "authentication.k8s.io", "", [cause])
        audiences = list(spec.get("audiences") or [ISSUER])
        account = entry.decode()
        bound = self._bound(spec.get("boundObjectRef"), namespace, name)
        now = int(time.time())
        token = self._tokens.issue(account, audiences, seconds, now, bound=bound, token_id=str(uuid.uuid4()))
        spec |= {"audiences": audiences, "expirationSeconds": seconds}
        end = clock.stamp(datetime.fromtimestamp(now + seconds, UTC))
        metadata = {"name": name, "namespace": namespace, "creationTimestamp": clock.now()}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": metadata,
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": end},
        }

    def _bound(self, reference: Any, namespace: str, account: str) -> Json | None:
        if not reference:
            return None
        storage = _BOUND.get(reference.get("kind", ""))
        if storage is None:
            raise bad_request(f"cannot bind token to object of type {reference.get('kind')}")
        name = reference.get("name", "")
        entry = self._store.get(storage, namespace, name)
        if entry is None:
            raise not_found(storage, "", name)
        if reference.get("uid") and reference["uid"] != entry.uid:
            raise not_found(storage, "", name)
        found = entry.decode()
        if storage == "pods" and found["spec"].get("serviceAccountName") != account:
            why = f"cannot bind token for serviceaccount {account!r} to pod running with another account"
            raise forbidden("serviceaccounts", "", account, why)
        return found

    def _token_review(self, body: Json, _user: User) -> Json:
        spec = body.get("spec") or {}
        audiences = list(spec.get("audiences") or [ISSUER])
        try:
            user, shared = self._tokens.judge(spec.get("token") or "", audiences)
        except TokenRefused as error:
            body["status"] = {"authenticated": False, "user": {}, "error": str(error)}
        else:
            body["status"] = {"authenticated": True, "user": _info(user), "audiences": shared}
        return body

    def _self_review(self, body: Json, user: User) -> Json:
        body["status"] = {"userInfo": _info(user)}
        return body

    def _self_access(self, body: Json, user: User) -> Json:
        return self._decide(body, user)

    def _access(self, body: Json, _user: User) -> Json:
        spec = body.get("spec") or {}
        return self._decide(body, User(spec.get("user") or "", tuple(spec.get("groups") or ())))

    def _decide(self, body: Json, user: User) -> Json:
        spec = body.get("spec") or {}
        decision = self._authorizer.decide(user, _action(spec))
        body["status"] = {"allowed": decision.allowed, "reason": decision.reason}
        return body

    def _rules(self, body: Json, user: User) -> Json:
        namespace = (body.get("spec") or {}).get("namespace") or ""
        rules = [rule for rule, _ in self._authorizer.rules(user, namespace)]
        if self._authorizer.decide(user, Action("*", "*", "*")).allowed:
            rules.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
            rules.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
        body["status"] = {
            "resourceRules": [rule for rule in rules if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }
        return body


def _action(spec: Json) -> Action:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource:
        names = ("verb", "group", "resource", "subresource", "namespace", "name")
        return Action(**{name: resource.get(name) or "" for name in names})
    if path:
        return Action(path.get("verb") or "", path=path.get("path") or "/")
    raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")


def _info(user: User) -> Json:
    info: Json = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = user.extra
    return info
