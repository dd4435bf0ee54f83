"""Versions of a proxy's resources that an Envoy refused: the last one that any Envoy took stands for them. No I/O.

Envoys keep by themselves what they have when they refuse what comes; this is for those that come later, of the same
Gateway, which have nothing. What no Envoy has ever taken has nothing to stand for it. A name is tried again as soon as
its resource is another one. Secrets are never kept back, and policies neither: for those agents put ones that let
nobody in. Other replicas of the control plane, and this one after a restart, know nothing of it until proxies
come, which tell it again. For whose sake a table is refused: `held_routes`.
"""

from collections.abc import Iterable

import msgspec

from ambit.plan.values import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from ambit.xds.frames import Resource, Response

KEPT = frozenset({CLUSTER, ENDPOINTS, LISTENER, ROUTES})
Name = tuple[str, str]
"""Type URL and name of a resource."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a version was refused, in Envoy's words."""

    version: str
    error: str


class Quarantine:
    """Of one Gateway's proxies."""

    def __init__(self) -> None:
        self._good: dict[Name, Resource] = {}
        self.refused: dict[Name, Refusal] = {}

    def acknowledged(self, response: Response) -> None:
        """An Envoy took all of these."""
        if response.type_url in KEPT:
            for each in response.resources:
                self._good[response.type_url, each.name] = each

    def rejected(self, response: Response, error: str) -> list[Name]:
        """An Envoy refused some of these: those that the error names, else all. What is new about it."""
        if response.type_url not in KEPT:
            return []
        named = [each for each in response.resources if f"{each.name}: " in error]
        found = []
        for each in named or response.resources:
            name, refusal = (response.type_url, each.name), Refusal(each.version, error)
            good = self._good.get(name)
            is_taken = good is not None and good.version == each.version
            if not is_taken and self.refused.get(name) != refusal:
                self.refused[name] = refusal
                found.append(name)
        for each in response.resources if named else ():
            if each not in named:
                self._good[response.type_url, each.name] = each
        return found

    def chosen(self, type_url: str, resource: Resource) -> Resource:
        """The resource, or what stands for it."""
        refusal = self.refused.get((type_url, resource.name))
        if refusal is None:
            return resource
        if refusal.version != resource.version:
            del self.refused[type_url, resource.name]
            return resource
        return self._good.get((type_url, resource.name), resource)

    def keep(self, names: Iterable[Name]) -> None:
        """Whatever is none of these is gone."""
        if not self._good and not self.refused:
            return
        wanted = set(names)
        self._good = {name: each for name, each in self._good.items() if name in wanted}
        self.refused = {name: each for name, each in self.refused.items() if name in wanted}
