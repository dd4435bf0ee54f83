"""Services as nft text: what kube-proxy is on a real node, for pods and processes that no mesh captures.

Pure. Two verdict maps lead from (address, protocol, port) to one chain for each service port, and that chain
picks a ready endpoint at random (by the client's address under `sessionAffinity: ClientIP`, so without state
and only until the endpoints change). Node ports are entries with the nodes' addresses. What still goes to the
service and load balancer ranges after translation has no endpoints or does not exist, and is refused at once
(TCP by a reset: an ICMPv6 error that arrives while the caller is still inside connect() is lost, and the
caller waits for a second).
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

import msgspec

from ambit.core.address import Address
from ambit.local.fabric.holders import is_own
from ambit.local.fabric.services import Endpoint, EndpointSlice, Service, ServicePort, SlicesByService
from ambit.local.layout import (
    BALANCERS_V4,
    BALANCERS_V6,
    SERVICES_V4,
    SERVICES_V6,
    NodeAddresses,
)

TABLE = "ambit_services"


class Target(msgspec.Struct, frozen=True, order=True):
    """One place that takes connections for a service port."""

    address: Address
    port: int


class Entry(msgspec.Struct, frozen=True):
    """One service port in one family: where it is called, and which targets take the call."""

    chain: str
    protocol: str
    calls: tuple[Target, ...]
    targets: tuple[Target, ...]
    sticky: bool


def entries(
    services: Iterable[Service], slices: SlicesByService, nodes: Sequence[NodeAddresses], node: str
) -> list[Entry]:
    """What is translated in the namespace of `node` ("" for the fabric's), in a stable order: the oldest Service goes
    first, and of several that say one address and port is theirs it alone is called there.

    Ports without any usable endpoint are left out.
    """
    found: list[Entry] = []
    for service in sorted(services, key=lambda service: service.metadata.age):
        if service.spec.type == "ExternalName":
            continue
        for port in service.spec.ports or ():
            for version in (4, 6):
                calls = tuple(
                    call for call in _calls(service, port, nodes) if call.address.version == version
                )
                local = node if service.spec.internal_traffic_policy == "Local" else ""
                targets = _targets(slices.get(service.key, ()), port, version, local)
                if calls and targets:
                    namespace, name = service.key
                    chain = f"to-{namespace}/{name}/{port.protocol.lower()}/{port.port}/v{version}"
                    sticky = service.spec.session_affinity == "ClientIP"
                    found.append(Entry(chain, port.protocol.lower(), calls, targets, sticky))
    return found


def udp_targets(table: Iterable[Entry]) -> frozenset[Target]:
    return frozenset(target for entry in table if entry.protocol == "udp" for target in entry.targets)


def service_table(table: Iterable[Entry]) -> str:
    """The whole table; loading it replaces the former one in one transaction."""
    table = list(table)
    chains = "".join(f"  chain {entry.chain} {{\n    {_choice(entry)}\n  }}\n" for entry in table)
    return f"""\
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
{chains}{_map("calls4", "ipv4_addr", 4, table)}{_map("calls6", "ipv6_addr", 6, table)}\
  chain translate {{
    ip daddr . meta l4proto . th dport vmap @calls4
    ip6 daddr . meta l4proto . th dport vmap @calls6
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat; policy accept;
    jump translate
  }}
  chain leaving {{
    type nat hook output priority -100; policy accept;
    jump translate
  }}
  chain refused {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain refuse {{
    ip daddr {{ {SERVICES_V4}, {BALANCERS_V4} }} goto refused
    ip6 daddr {{ {SERVICES_V6}, {BALANCERS_V6} }} goto refused
  }}
  chain refuse_forwarded {{
    type filter hook forward priority filter; policy accept;
    jump refuse
  }}
  chain refuse_local {{
    type filter hook output priority filter; policy accept;
    jump refuse
  }}
}}
"""


def _calls(service: Service, port: ServicePort, nodes: Sequence[NodeAddresses]) -> Iterator[Target]:
    for text in service.cluster_addresses + service.balancer_addresses:
        yield Target(ip_address(text), port.port)
    for text in service.spec.external_ips:
        if not is_own(address := ip_address(text)):
            yield Target(address, port.port)
    if port.node_port:
        for node in nodes:
            yield Target(node.v4, port.node_port)
            yield Target(node.v6, port.node_port)


def _targets(
    slices: Iterable[EndpointSlice], port: ServicePort, version: int, local: str
) -> tuple[Target, ...]:
    ready: set[Target] = set()
    last_resort: set[Target] = set()
    for part in slices:
        if part.address_type != f"IPv{version}":
            continue
        number = part.target_port(port)
        if number is None:
            continue
        for endpoint in part.endpoints or ():
            if local and endpoint.node_name != local:
                continue
            if endpoint.is_ready:
                ready.update(_places(endpoint, number))
            elif endpoint.is_last_resort:
                last_resort.update(_places(endpoint, number))
    return tuple(sorted(ready or last_resort))


def _places(endpoint: Endpoint, port: int) -> Iterator[Target]:
    for text in endpoint.addresses[:1]:
        yield Target(ip_address(text), port)


def _choice(entry: Entry) -> str:
    family = "ip" if entry.targets[0].address.version == 4 else "ip6"
    if len(entry.targets) == 1:
        return f"meta l4proto {entry.protocol} dnat {family} to {_text(entry.targets[0], ':')}"
    chooser = f"jhash {family} saddr" if entry.sticky else "numgen random"
    places = ", ".join(f"{index} : {_text(target, ' . ')}" for index, target in enumerate(entry.targets))
    count = len(entry.targets)
    return f"meta l4proto {entry.protocol} dnat {family} to {chooser} mod {count} map {{ {places} }}"


def _text(target: Target, separator: str) -> str:
    if separator == ":" and target.address.version == 6:
        return f"[{target.address}]:{target.port}"
    return f"{target.address}{separator}{target.port}"


def _map(name: str, kind: str, version: int, table: Iterable[Entry]) -> str:
    verdicts: dict[str, str] = {}
    for entry in table:
        for call in entry.calls:
            if call.address.version == version:
                key = f"{call.address} . {entry.protocol} . {call.port}"
                verdicts.setdefault(key, f"{key} : goto {entry.chain}")
    lines = ",\n      ".join(verdicts.values())
    elements = f"    elements = {{\n      {lines}\n    }}\n" if verdicts else ""
    return f"  map {name} {{\n    type {kind} . inet_proto . inet_service : verdict\n{elements}  }}\n"
