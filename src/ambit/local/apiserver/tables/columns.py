"""The columns kubectl prints for built-in kinds. Spec: Kubernetes `pkg/printers/internalversion`."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ambit.local.apiserver import clock
from ambit.local.apiserver.scale import selector_text
from ambit.local.apiserver.storage.store import Json

Cell = Callable[[Json], Any]
NONE = "<none>"


class Column(msgspec.Struct, frozen=True):
    """`priority` 1 is shown with `-o wide` only."""

    name: str
    cell: Cell
    priority: int = 0
    type: str = "string"
    format: str = ""


def human(seconds: float) -> str:
    """A duration the way kubectl shortens it (apimachinery `HumanDuration`)."""
    total = int(seconds)
    if total < 0:
        return "0s" if total >= -1 else "<invalid>"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d") if days < 2920 else f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(text: str | None) -> str:
    """Time since an RFC 3339 stamp."""
    if not text:
        return "<unknown>"
    try:
        return human((datetime.now(UTC) - clock.parse(text)).total_seconds())
    except ValueError:
        return "<unknown>"


def at(*path: str, default: Any = "") -> Cell:
    """The value at a path."""

    def cell(body: Json) -> Any:
        value: Any = body
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return default if value is None else value

    return cell


def name(body: Json) -> str:
    return str(body["metadata"].get("name", ""))


def age(body: Json) -> str:
    return since(body["metadata"].get("creationTimestamp"))


def labels_text(labels: Any) -> str:
    if not labels:
        return NONE
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def selector(body: Json) -> str:
    found = (body.get("spec") or {}).get("selector")
    if not found:
        return NONE
    if "matchLabels" in found or "matchExpressions" in found:
        return selector_text(found) or NONE
    return labels_text(found)


def _pod_spec(body: Json) -> Json:
    spec = body.get("spec") or {}
    if "jobTemplate" in spec:
        spec = (spec["jobTemplate"] or {}).get("spec") or {}
    found: Json = (spec.get("template") or {}).get("spec") or {}
    return found


def containers(body: Json) -> str:
    return ",".join(one.get("name", "") for one in _pod_spec(body).get("containers") or ()) or NONE


def images(body: Json) -> str:
    return ",".join(one.get("image", "") for one in _pod_spec(body).get("containers") or ()) or NONE


def count(*path: str) -> Cell:
    """How many members there are at a path."""
    reader = at(*path, default=())
    return lambda body: len(reader(body))


NAME = Column("Name", name, format="name")
AGE = Column("Age", age)
CREATED = Column("Created At", at("metadata", "creationTimestamp"), type="date")
WIDE_TEMPLATE = (
    Column("Containers", containers, 1),
    Column("Images", images, 1),
    Column("Selector", selector, 1),
)


def number(title: str, *path: str, default: Any = 0) -> Column:
    return Column(title, at(*path, default=default), type="integer")
