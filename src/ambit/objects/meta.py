"""What every API object carries: ObjectMeta, as far as anything here reads it.

Projections decode straight from JSON bytes (`msgspec.json.decode(data, type=Pod)`), ignore what they do
not name, and stay small: one hundred thousand of them are kept. Field names are the API's, in snake case.
"""

import msgspec

from ambit.core.finding import ObjectRef


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    controller: bool = False


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    """Kubernetes `metav1.ObjectMeta`. Times stay RFC 3339 text in UTC, which sorts by age."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def key(self) -> str:
        """`<namespace>/<name>`, or `<name>` for a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def age(self) -> tuple[str, str, str]:
        """Sorts the oldest first; between objects of one second by namespace and name (GEP-713)."""
        return (self.creation_timestamp or "9999", self.namespace, self.name)

    def reference(self, kind: str) -> ObjectRef:
        return ObjectRef(kind, self.namespace, self.name)
