"""What belongs into each namespace of the fabric: names, addresses, routes and the table against forged
sources.

Pure. Pods are routed, not bridged: each pod's veth carries host routes only, so all of its packets, also
those to a pod on the same node, pass the node's hooks once in each direction. That is what makes Service
addresses work without the `br_netfilter` module, and lets no pod speak to another below IP. Neighbour
entries are permanent everywhere: no first packet waits, and a forged ARP or ND packet changes nothing. (They
are also needed: a router without link-local addresses, as ours, never asks for a neighbour on behalf of
others.)
"""

import ipaddress
from collections.abc import Iterable

import msgspec

from ambit.core.address import Address, Network
from ambit.core.names import PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, PROBE_MARK
from ambit.local.fabric import rtnetlink
from ambit.local.fabric.netlink import Message
from ambit.local.layout import FABRIC_V4, FABRIC_V6, SERVICES_V4, SERVICES_V6, NodeAddresses

BRIDGE = "fabric"
NODE_INTERFACE = "eth0"
"""A node's interface on the fabric; its other end carries the node's name."""
POD_INTERFACE = "eth0"
FIRST_HOST, LAST_HOST = 2, 254
_LOOPBACK = 1

PROBE_SOURCES: tuple[Address, ...] = (
    ipaddress.IPv4Address(PROBE_ADDRESS_V4),
    ipaddress.IPv6Address(PROBE_ADDRESS_V6),
)

SYSCTLS = {
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
"""In every namespace, before its first interface exists."""

ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}
"""In the fabric and the nodes."""

OPTIONAL_SYSCTLS = {
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
"""Not on every kernel, or refused where the user namespace maps few groups."""


class PodPlace(msgspec.Struct, frozen=True):
    """The place of one pod on its node: `host` is the last part of both addresses."""

    node: NodeAddresses
    host: int

    @property
    def interface(self) -> str:
        """The node's end of the veth pair; the address can be read from its name."""
        return f"pod{self.host}"

    @property
    def v4(self) -> ipaddress.IPv4Address:
        return self.node.pods_v4[self.host]

    @property
    def v6(self) -> ipaddress.IPv6Address:
        return self.node.pods_v6[self.host]

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (self.v4, self.v6)

    @property
    def link_address(self) -> bytes:
        return bytes((0x02, 0xF4, *self.node.index.to_bytes(2, "big"), 0, self.host))

    @property
    def node_link_address(self) -> bytes:
        return bytes((0x02, 0xF5, *self.node.index.to_bytes(2, "big"), 0, self.host))


FABRIC_LINK_ADDRESS = bytes.fromhex("02f300000001")


def uplink_link_address(node: NodeAddresses) -> bytes:
    """Of the node's interface on the fabric."""
    return bytes((0x02, 0xF3, *node.index.to_bytes(2, "big"), 0, 2))


def host_of(interface: str) -> int | None:
    """The reverse of `PodPlace.interface`; None for other interfaces."""
    number = interface.removeprefix("pod")
    return int(number) if number != interface and number.isdecimal() else None


def gateways(node: NodeAddresses) -> tuple[Address, ...]:
    """The node's own addresses among its pods."""
    return (node.pods_v4[1], node.pods_v6[1])


def fabric_requests(bridge: int, nodes: Iterable[NodeAddresses]) -> list[Message]:
    """For the fabric's namespace, once its bridge exists.

    Service addresses are routed to the bridge only so that a local connection finds a route before the
    Service table rewrites its destination; what remains unrewritten is refused there.
    """
    requests = [rtnetlink.set_up(_LOOPBACK), rtnetlink.set_up(bridge)]
    requests += [rtnetlink.add_address(bridge, at.ip, at.network.prefixlen) for at in (FABRIC_V4, FABRIC_V6)]
    requests += [
        rtnetlink.add_route(services, bridge, source=source)
        for services, source in ((SERVICES_V4, FABRIC_V4.ip), (SERVICES_V6, FABRIC_V6.ip))
    ]
    return requests + _ways_to(nodes, bridge)


def node_requests(uplink: int, node: NodeAddresses, nodes: Iterable[NodeAddresses]) -> list[Message]:
    """For a node's namespace, once its interface on the fabric exists."""
    requests = [rtnetlink.set_up(_LOOPBACK), rtnetlink.set_up(uplink)]
    requests += [
        rtnetlink.add_address(_LOOPBACK, address, address.max_prefixlen)
        for address in (*gateways(node), *PROBE_SOURCES)
    ]
    requests += [
        rtnetlink.add_address(uplink, node.v4, FABRIC_V4.network.prefixlen),
        rtnetlink.add_address(uplink, node.v6, FABRIC_V6.network.prefixlen),
        rtnetlink.add_route(ipaddress.IPv4Network("0.0.0.0/0"), uplink, gateway=FABRIC_V4.ip, source=node.v4),
        rtnetlink.add_route(ipaddress.IPv6Network("::/0"), uplink, gateway=FABRIC_V6.ip, source=node.v6),
        rtnetlink.add_neighbour(uplink, FABRIC_V4.ip, FABRIC_LINK_ADDRESS),
        rtnetlink.add_neighbour(uplink, FABRIC_V6.ip, FABRIC_LINK_ADDRESS),
        rtnetlink.refuse_route(node.pods_v4),
        rtnetlink.refuse_route(node.pods_v6),
    ]
    return requests + _ways_to([other for other in nodes if other != node], uplink)


def pod_requests(interface: int, place: PodPlace) -> list[Message]:
    """For a pod's namespace, once its interface exists."""
    requests = [rtnetlink.set_up(_LOOPBACK), rtnetlink.set_up(interface)]
    for address, gateway in zip(place.addresses, gateways(place.node), strict=True):
        everywhere: Network = ipaddress.ip_network("0.0.0.0/0" if address.version == 4 else "::/0")
        requests += [
            rtnetlink.add_address(interface, address, address.max_prefixlen),
            rtnetlink.add_neighbour(interface, gateway, place.node_link_address),
            rtnetlink.add_route(everywhere, interface, gateway=gateway, source=address, on_link=True),
        ]
    return requests


def attach_requests(interface: int, place: PodPlace, sandbox: str) -> list[Message]:
    """For the node's end of a pod's veth pair. The alias comes last: an interface without one is
    unfinished."""
    requests = [rtnetlink.set_up(interface)]
    for address, gateway in zip(place.addresses, gateways(place.node), strict=True):
        requests += [
            rtnetlink.add_neighbour(interface, address, place.link_address),
            rtnetlink.add_route(ipaddress.ip_network(address), interface, source=gateway),
        ]
    return [*requests, rtnetlink.set_alias(interface, sandbox)]


_UNMARKED = f"tcp flags syn / fin,syn,rst,ack meta mark != {PROBE_MARK}"


def guard_table(node: NodeAddresses) -> str:
    """The node's nft table that drops forged sources, and lets a pod reach itself through a Service.

    Captured pods take connections from the probes' source past the proxy, so only the pod runner's may have it: pods
    with hostNetwork run in this namespace as well, and may not set marks.

    It holds every possible pod from the start, so that a pod's start changes no rule. A packet that comes
    back to the pod it left (its destination was rewritten to its own source) gets the node's address as
    source, because a pod would refuse a packet from itself.
    """
    places = [PodPlace(node, host) for host in range(FIRST_HOST, LAST_HOST + 1)]
    v4 = ", ".join(f'"{place.interface}" . {place.v4}' for place in places)
    v6 = ", ".join(f'"{place.interface}" . {place.v6}' for place in places)
    gateway_v4, gateway_v6 = gateways(node)
    return f"""\
table inet ambit_guard
delete table inet ambit_guard
table inet ambit_guard {{
  set pods4 {{ typeof iifname . ip saddr; elements = {{ {v4} }} }}
  set pods6 {{ typeof iifname . ip6 saddr; elements = {{ {v6} }} }}
  chain sources {{
    type filter hook prerouting priority raw; policy accept;
    iifname "pod*" iifname . ip saddr @pods4 accept
    iifname "pod*" iifname . ip6 saddr @pods6 accept
    iifname "pod*" counter drop
    iifname "{NODE_INTERFACE}" ip saddr {{ {PROBE_ADDRESS_V4}, {node.pods_v4} }} counter drop
    iifname "{NODE_INTERFACE}" ip6 saddr {{ {PROBE_ADDRESS_V6}, {node.pods_v6} }} counter drop
  }}
  chain probes {{
    type filter hook output priority filter; policy accept;
    {_UNMARKED} ip saddr {PROBE_ADDRESS_V4} counter reject with tcp reset
    {_UNMARKED} ip6 saddr {PROBE_ADDRESS_V6} counter reject with tcp reset
  }}
  chain hairpin {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname . ip saddr @pods4 snat ip to {gateway_v4}
    oifname . ip6 saddr @pods6 snat ip6 to {gateway_v6}
  }}
}}
"""


def _ways_to(nodes: Iterable[NodeAddresses], interface: int) -> list[Message]:
    """Neighbour entries of the nodes and the routes to their pods."""
    requests = []
    for node in nodes:
        for address, pods in ((node.v4, node.pods_v4), (node.v6, node.pods_v6)):
            requests.append(rtnetlink.add_neighbour(interface, address, uplink_link_address(node)))
            requests.append(rtnetlink.add_route(pods, interface, gateway=address))
    return requests
