"""Keys of lookups: what an answer read, and what a change touched, so that only what must is recomputed.

| key | lookup |
| --- | --- |
| `r:NAME` | a workload or service by name |
| `a:NETWORK/HEX` | workload or service by address |
| `cidr` | services whose address is a range (all of them: they are few) |
| `outer` | networks outside the usual ranges in which the mesh has addresses |
| `e:SERVICE` | endpoints of a service |
| `p:*`, `p:NAMESPACE` | policies of the mesh, of a namespace |
| `n:NAME` | a policy by name |
"""

from collections.abc import Iterable

from ambit.core.address import Address, outer_network
from ambit.model.policy import Authorization, Scope
from ambit.model.service import Service
from ambit.model.workload import Workload

RANGES = "cidr"
OUTER = "outer"


def resource(name: str) -> str:
    return f"r:{name}"


def address(network: str, packed: bytes) -> str:
    return f"a:{network}/{packed.hex()}"


def address_of(network: str, value: Address) -> str:
    return address(network, value.packed)


def endpoints(service: str) -> str:
    return f"e:{service}"


def policy(name: str) -> str:
    return f"n:{name}"


def policies(scope: int, namespace: str) -> str:
    """A selector-scoped policy is read by its name alone, so its key here is one nobody reads."""
    match scope:
        case Scope.GLOBAL:
            return "p:*"
        case Scope.NAMESPACE:
            return f"p:{namespace}"
        case _:
            return "p:"


def are_of_policies(touched: Iterable[str]) -> bool:
    """Whether a policy is among what these keys look up."""
    return any(key.startswith(("p:", "n:")) for key in touched)


def of_value(value: Workload | Service | Authorization) -> set[str]:
    """Keys of every lookup that can find this value."""
    match value:
        case Workload():
            found = {address_of(value.network, each) for each in value.addresses}
            if any(outer_network(each) for each in value.addresses):
                found.add(OUTER)
            return found | {endpoints(service) for service in value.services} | {resource(value.uid)}
        case Service():
            found = {
                RANGES if each.prefix is not None else address_of(each.network, each.address)
                for each in value.addresses
            }
            if any(outer_network(each.address, each.prefix) for each in value.addresses):
                found.add(OUTER)
            return found | {resource(value.key)}
        case Authorization():
            return {policy(value.key), policies(int(value.scope), value.namespace)}
