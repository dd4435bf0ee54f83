"""Findings: what is wrong with an object, a value beside the result, never an exception in the compiler."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class ObjectRef(msgspec.Struct, frozen=True, order=True):
    """Names one API object. `namespace` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Finding(msgspec.Struct, frozen=True, order=True):
    """A stable code (`AMBnnnn`, never reused), the object, the field path in it, and one sentence."""

    code: str
    level: Level
    origin: ObjectRef
    path: str
    text: str

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        return f"{self.code} [{self.level}] {self.origin}{where}: {self.text}"
