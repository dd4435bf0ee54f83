"""Failures as Kubernetes Status objects, in the words and codes that kubectl and client-go expect.

Spec: API conventions, "Response Status Kind"; message shapes follow apimachinery's `errors` package.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

CauseReason = Literal[
    "FieldValueRequired",
    "FieldValueInvalid",
    "FieldValueNotSupported",
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
    "FieldValueNotFound",
    "FieldManagerConflict",
    "NamespaceTerminating",
    "ResourceVersionTooLarge",
    "UnexpectedServerResponse",
]


class Cause(msgspec.Struct, frozen=True):
    """One wrong field. `message` does not repeat the field's path."""

    reason: CauseReason
    message: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class ApiFailure(Exception):
    """Ends a request with a Status object."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        causes: Sequence[Cause] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.causes = tuple(causes)

    def status(self) -> dict[str, Any]:
        """The body to send."""
        details = dict(self.details)
        if self.causes:
            details["causes"] = [msgspec.to_builtins(cause) for cause in self.causes]
            for cause in details["causes"]:
                if not cause["field"]:
                    del cause["field"]
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if details:
            body["details"] = details
        return body


def qualified(plural: str, group: str) -> str:
    """`pods`, or `deployments.apps`."""
    return f"{plural}.{group}" if group else plural


def _details(plural: str, group: str, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name, "kind": plural}
    if group:
        details["group"] = group
    return details


def not_found(plural: str, group: str, name: str) -> ApiFailure:
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiFailure(404, "NotFound", message, details=_details(plural, group, name))


def no_such_path() -> ApiFailure:
    """The server serves nothing at this path (an unknown group, version or kind)."""
    return ApiFailure(404, "NotFound", "the server could not find the requested resource")


def already_exists(plural: str, group: str, name: str) -> ApiFailure:
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiFailure(409, "AlreadyExists", message, details=_details(plural, group, name))


def conflict(plural: str, group: str, name: str, why: str) -> ApiFailure:
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiFailure(409, "Conflict", message, details=_details(plural, group, name))


def modified(plural: str, group: str, name: str) -> ApiFailure:
    """Optimistic concurrency: the caller's resourceVersion is not the stored one."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(plural, group, name, why)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiFailure:
    """422 with one cause per wrong field."""
    texts = list(dict.fromkeys(str(cause) for cause in causes))
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {text}'
    return ApiFailure(422, "Invalid", message, details=_details(kind, group, name), causes=causes)


def forbidden(plural: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiFailure:
    subject = f'{qualified(plural, group)} "{name}"' if name else qualified(plural, group)
    details = _details(plural, group, name) if name else {"kind": plural}
    return ApiFailure(403, "Forbidden", f"{subject} is forbidden: {why}", details=details, causes=causes)


def bad_request(message: str) -> ApiFailure:
    return ApiFailure(400, "BadRequest", message)


def unauthorized() -> ApiFailure:
    return ApiFailure(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> ApiFailure:
    """410: the resourceVersion or continue token is older than the history kept."""
    return ApiFailure(410, "Expired", message)


def method_not_allowed(method: str) -> ApiFailure:
    message = f"the server does not allow this method on the requested resource ({method})"
    return ApiFailure(405, "MethodNotAllowed", message)


def unsupported_media_type(got: str, supported: Sequence[str]) -> ApiFailure:
    message = f"the body of the request was in an unknown format ({got}) - accepted media types include: "
    return ApiFailure(415, "UnsupportedMediaType", message + ", ".join(supported))


def version_too_large(wanted: int, current: int) -> ApiFailure:
    """504: the caller names a resourceVersion of the future (client-go retries on this cause)."""
    return ApiFailure(
        504,
        "Timeout",
        f"Too large resource version: {wanted}, current: {current}",
        details={"retryAfterSeconds": 1},
        causes=[Cause("ResourceVersionTooLarge", "Too large resource version")],
    )
