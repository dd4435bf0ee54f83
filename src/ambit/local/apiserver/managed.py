"""metadata.managedFields: who wrote which field."""

from typing import TYPE_CHECKING, Any

from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.store import Json

if TYPE_CHECKING:
    from ambit.local.apiserver.writes import WriteOptions, Writer


def record_write(
    writer: "Writer",
    resource: Resource,
    old: Json | None,
    body: Json,
    options: "WriteOptions",
    subresource: str,
    *,
    applied: Any = None,
) -> None:
    """Notes in `body` which fields this write set."""
    metadata = body["metadata"]
    metadata.pop("managedFields", None)
    if old is not None and "managedFields" in old["metadata"]:
        metadata["managedFields"] = old["metadata"]["managedFields"]
