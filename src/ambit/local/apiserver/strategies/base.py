"""The shape of a kind's rules. Each hook has a neutral default."""

from typing import Any, Protocol

from ambit.local.apiserver.addresses import ServiceAddresses
from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.resources import Registry
from ambit.local.apiserver.storage.store import Json, Store
from ambit.objects.validation import show


class Cluster(Protocol):
    """What rules may look at."""

    store: Store
    registry: Registry
    addresses: ServiceAddresses


class Strategy:
    """Hooks are called in this order: default, create or update, validate, stored."""

    def default(self, body: Json) -> None:
        """Fills in what the user left out, in place."""

    def create(self, cluster: Cluster, body: Json) -> None:
        """Sets what the server decides when an object is new."""

    def update(self, cluster: Cluster, body: Json, old: Json) -> None:
        """Carries over what clients cannot change."""

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        """What is wrong; `old` is given for updates."""
        return []

    def rejected(self, cluster: Cluster, body: Json, old: Json | None) -> None:
        """The write was refused or a dry run: gives back what `create` or `update` took."""

    def warnings(self, body: Json) -> list[str]:
        """What the client should know although the object is valid."""
        return []

    def deleted(self, cluster: Cluster, body: Json) -> None:
        """After the object is gone: gives back what it held."""


def setdefaults(target: Json, values: dict[str, Any]) -> None:
    """Sets members that are absent or null."""
    for name, value in values.items():
        if target.get(name) is None:
            target[name] = value


def immutable(field: str, new: Any, old: Any) -> list[Cause]:
    """Forbids a change of a field."""
    if new == old:
        return []
    return [Cause("FieldValueInvalid", f"Invalid value: {show(new)}: field is immutable", field)]
