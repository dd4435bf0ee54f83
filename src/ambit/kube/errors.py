"""What a Kubernetes API server can answer instead of an object, as one small error tree.

The server's own `reason`, `message` and HTTP `code` (meta/v1 Status) are kept, so that callers decide by
class and people read the server's sentence.
"""

from typing import Any

import msgspec

from ambit.core.errors import AmbitError, Unreachable

__all__ = [
    "AlreadyExists",
    "ApiError",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "MethodNotAllowed",
    "NotFound",
    "Overloaded",
    "Unauthorized",
    "Unreachable",
    "UnsupportedMediaType",
    "error_of",
    "error_of_status",
]


class ApiError(AmbitError):
    """The server refused. `status` is its Status object ({} when it sent none)."""

    def __init__(self, code: int, reason: str, message: str, status: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.status = status or {}

    @property
    def causes(self) -> list[dict[str, Any]]:
        """`details.causes`: which fields are wrong and why."""
        details = self.status.get("details") or {}
        return list(details.get("causes") or ())


class NotFound(ApiError):
    """404: neither the object nor perhaps its kind exists."""


class AlreadyExists(ApiError):
    """409 AlreadyExists: a create met an object of that name."""


class Conflict(ApiError):
    """409: the object changed since it was read, or another field manager owns a field."""


class Gone(ApiError):
    """410 Gone or Expired: that resource version is no longer in the watch history."""


class Invalid(ApiError):
    """422 (or 400): the object or the request is wrong; see `causes`."""


class Forbidden(ApiError):
    """403: the caller may not do that."""


class Unauthorized(ApiError):
    """401: the server does not know the caller."""


class MethodNotAllowed(ApiError):
    """405: the resource has no such verb."""


class UnsupportedMediaType(ApiError):
    """415: the server does not know that patch type for this resource."""


class Overloaded(ApiError):
    """429 or 5xx: worth another try later."""


_BY_CODE: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    410: Gone,
    415: UnsupportedMediaType,
    422: Invalid,
    429: Overloaded,
}


def error_of(code: int, body: bytes) -> ApiError:
    """The error that an HTTP answer with this code and body stands for."""
    try:
        status = msgspec.json.decode(body)
    except msgspec.DecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return error_of_status({"code": code, **status})
    text = body.decode("utf-8", "replace").strip()
    return _class_of(code, "")(code, "", text or f"the API server answered with HTTP status {code}")


def error_of_status(status: dict[str, Any]) -> ApiError:
    """The error that a Status object stands for (body of a refused request, or object of an ERROR event)."""
    code = status.get("code")
    code = code if isinstance(code, int) else 500
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or reason or f"the API server answered with HTTP status {code}")
    return _class_of(code, reason)(code, reason, message, status)


def _class_of(code: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if reason in ("Expired", "Gone"):
        return Gone
    if code in _BY_CODE:
        return _BY_CODE[code]
    return Overloaded if code >= 500 else ApiError
