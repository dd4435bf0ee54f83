"""SPIFFE identities of workloads: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`."""

import re
from collections.abc import Iterator
from typing import Self

import msgspec

_PART = r"[A-Za-z0-9._-]+"
_URI = re.compile(rf"spiffe://(?P<td>{_PART})/ns/(?P<ns>{_PART})/sa/(?P<sa>{_PART})")


class Identity(msgspec.Struct, frozen=True, order=True):
    """Who a workload is. Parts are never empty and never contain a slash."""

    trust_domain: str
    namespace: str
    service_account: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """The identity of a SPIFFE URI. Raises ValueError when it is not of Istio's form."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise ValueError(f"{uri!r} is not spiffe://<trust-domain>/ns/<namespace>/sa/<account>")
        return cls(match["td"], match["ns"], match["sa"])

    @property
    def uri(self) -> str:
        return f"spiffe://{self.principal}"

    @property
    def principal(self) -> str:
        """As AuthorizationPolicy writes it: without the scheme (Istio `source.principals`)."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    def __str__(self) -> str:
        return self.uri


class TrustDomains(msgspec.Struct, frozen=True):
    """The mesh's own trust domain and its aliases, which mean the same: so a mesh moves from one to another while
    certificates and policies of both are there (Istio: `meshConfig.trustDomainAliases`)."""

    own: str
    aliases: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """Each once, the own first."""
        return iter(dict.fromkeys((self.own, *self.aliases)))

    def forms(self, identity: Identity) -> tuple[Identity, ...]:
        """All that mean this one, itself among them; of a foreign trust domain only itself."""
        if identity.trust_domain not in self:
            return (identity,)
        return tuple(msgspec.structs.replace(identity, trust_domain=each) for each in self)

    def are_same(self, one: Identity, other: Identity) -> bool:
        """Whether both are the same workload's."""
        return one == other or other in self.forms(one)
