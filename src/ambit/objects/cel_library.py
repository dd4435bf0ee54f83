"""Functions that Kubernetes adds to CEL (strings, lists, regex, URLs, IP addresses, formats), in Python.

Spec: Kubernetes "Common Expression Language" reference, "CEL options, language features and libraries".
"""

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import SplitResult, urlsplit

_STANDARD = frozenset(
    [
        "size",
        "contains",
        "matches",
        "startsWith",
        "endsWith",
        "duration",
        "timestamp",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "bool",
        "type",
        "dyn",
        "has",
        "all",
        "exists",
        "exists_one",
        "map",
        "filter",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
        "max",
        "min",
        "optional",
    ]
)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")


def _split_url(text: str) -> SplitResult | None:
    """Absolute URLs and absolute paths are URLs (Go `url.ParseRequestURI`)."""
    if re.search(r"[\x00-\x20\x7f]", text):
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme and (parts.netloc or parts.path):
        return parts
    return parts if text.startswith("/") else None


def _is_url(text: str) -> bool:
    return _split_url(text) is not None


def _url(text: str) -> str:
    if not _is_url(text):
        raise ValueError(f"{text!r} is not a URL")
    return text


def _url_part(read: Callable[[SplitResult], str]) -> Callable[[str], str]:
    return lambda text: read(urlsplit(text))


def _port(parts: SplitResult) -> str:
    return str(parts.port) if parts.port else ""


def _hostname(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2].rpartition(":")[0] if _port(parts) else parts.netloc


def _is_ip(text: str, version: int = 0) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and version in {0, address.version}


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError("substring: index out of range")
    return text[start:end]


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if separator == "":
        return list(text)
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit)


def _index_of(value: Any, item: Any, start: int = 0) -> int:
    if isinstance(value, str):
        return value.find(item, start)
    return value.index(item) if item in value else -1


def _last_index_of(value: Any, item: Any) -> int:
    if isinstance(value, str):
        return value.rfind(item)
    return len(value) - 1 - value[::-1].index(item) if item in value else -1


def _join(items: Iterable[str], separator: str = "") -> str:
    return separator.join(items)


def _is_sorted(items: list[Any]) -> bool:
    return all(left <= right for left, right in itertools.pairwise(items))


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[0] if match else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match[0] for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


_FORMATS: dict[str, tuple[Callable[[str], bool], str]] = {
    "dns1123Label": (
        lambda text: bool(_LABEL.fullmatch(text)),
        "a lowercase RFC 1123 label is required",
    ),
    "dns1123Subdomain": (
        lambda text: len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text)),
        "a lowercase RFC 1123 subdomain is required",
    ),
    "dns1035Label": (lambda text: bool(_LABEL_1035.fullmatch(text)), "a DNS-1035 label is required"),
    "qualifiedName": (
        lambda text: bool(_QUALIFIED.fullmatch(text.rpartition("/")[2])),
        "a qualified name is required",
    ),
    "labelValue": (
        lambda text: text == "" or bool(_QUALIFIED.fullmatch(text)),
        "a valid label value is required",
    ),
    "uri": (_is_url, "a URI is required"),
    "uuid": (
        lambda text: bool(re.fullmatch(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)),
        "a UUID",
    ),
    "date": (lambda text: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text)), "a date is required"),
}


def _format(name: str) -> Callable[..., str]:
    return lambda *_: name


def _validate(name: str, text: str) -> list[str] | None:
    """None when the text has the format, else what is wrong."""
    test, message = _FORMATS[name]
    return None if test(text) else [message]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "isURL": _is_url,
    "url": _url,
    "getScheme": _url_part(lambda parts: parts.scheme),
    "getHost": _url_part(lambda parts: parts.netloc.rpartition("@")[2]),
    "getHostname": _url_part(_hostname),
    "getPort": _url_part(_port),
    "getEscapedPath": _url_part(lambda parts: parts.path),
    "isIP": _is_ip,
    "isCIDR": _is_cidr,
    "substring": _substring,
    "split": _split,
    "replace": _replace,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "join": _join,
    "trim": lambda text: text.strip(),
    "lowerAscii": lambda text: text.lower(),
    "upperAscii": lambda text: text.upper(),
    "charAt": lambda text, index: text[index : index + 1],
    "isSorted": _is_sorted,
    "sum": lambda items: sum(items),
    "find": _find,
    "findAll": _find_all,
    "validate": _validate,
    **{name: _format(name) for name in _FORMATS},
}


def unknown_functions(names: Iterable[str]) -> list[str]:
    """Names that are neither CEL's nor in this library."""
    return [
        name
        for name in names
        if name not in FUNCTIONS and name not in _STANDARD and name[:1] not in {"_", "@", "!", "-"}
    ]


def context(variables: dict[str, Any]) -> Any:
    """The engine's evaluation context."""
    from cel.cel import Context

    return Context(variables, FUNCTIONS)
