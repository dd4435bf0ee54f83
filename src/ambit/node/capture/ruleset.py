"""nftables rules in a pod's namespace, as text exactly as nft prints it, so that it can be read back and
compared.

Of two kinds: `ambit.node.capture.transparent`, and here NAT redirect, as Istio does it:
1. what the pod opens goes to 15001, its DNS to 15053 (not loopback, not what the proxy itself opens);
2. what reaches the pod goes to 15006, HBONE stays on 15008, host probes go straight in;
3. connections that the proxy opens into the pod are marked when they *arrive* (never when they leave: the
proxy's own outbound tunnels would be rerouted), and replies get that mark so that table 100 keeps them local;
4. while the agent is away nobody answers on 15053, and the kernel's "port unreachable" would make resolvers fail at
once: it is dropped, so that they ask again until the agent is back;
5. what was open before goes on as it was: the kernel begins to track connections with these rules, and would redirect
the middle of one to a proxy that does not know it, so only a packet that opens a connection is redirected;
6. UDP that is not DNS is never touched, only counted;
7. what enters over an interface behind which the pod has virtual machines or containers of its own is the pod's: it
goes to 15001, and comes there from the pod's own address, because the proxy goes on from the client's;
8. whoever opens a connection to the pod is redirected or not let in: the kernel still knows an older connection for
some seconds after it was reset, and would let the same client in again from the same port unasked.
"""

from collections.abc import Iterable

import msgspec

from ambit.core.address import Address
from ambit.core.names import (
    CONNECTION_MARK,
    DNS_PORT,
    HBONE_PORT,
    INBOUND_PLAINTEXT_PORT,
    MARK_MASK,
    OUTBOUND_PORT,
    PROBE_ADDRESS_V4,
    PROBE_ADDRESS_V6,
    PROXY_MARK,
)
from ambit.node.capture import table, transparent

TABLE = "ambit"
VERSION = 5
"""Changes whenever the rules do; it is in the table's comment for people."""


UDP_SENT, UDP_RECEIVED = "udp_sent", "udp_received"
"""Counters of what passes beside the mesh."""


class Capture(msgspec.Struct, frozen=True):
    """What is captured of a pod: `dns` its queries (annotation ambient.istio.io/dns-capture), `inbound` what
    reaches it (annotation ambient.istio.io/bypass-inbound-capture turns that off), and what enters over `interfaces` as
    if the pod had sent it (annotation istio.io/reroute-virtual-interfaces; with NAT only). `addresses` are the pod's.
    `transparent`: without NAT; then connections that it opened while it was leaving can be `spared`."""

    dns: bool = True
    inbound: bool = True
    transparent: bool = False
    addresses: tuple[Address, ...] = ()
    interfaces: tuple[str, ...] = ()
    spared: bool = False


def redirect(capture: Capture) -> str:
    """The table of an enrolled pod."""
    if capture.transparent:
        chains = [
            *_counted(),
            *transparent.chains(capture.addresses, dns=capture.dns, spared=capture.spared),
        ]
        if capture.dns:
            chains.append(table.chain("hold_questions", "filter hook output priority raw", _unanswered()))
        return table.table(TABLE, f"ambit transparent capture {transparent.VERSION}", chains)
    chains = [*_counted(), *_marks(), table.chain("redirect_leaving", _LEAVING_HOOK, _leaving(capture))]
    if capture.inbound or capture.interfaces:
        chains.append(table.chain("redirect_arriving", _ARRIVING_HOOK, _arriving(capture)))
    if capture.interfaces:
        chains.append(table.chain("name_within", "nat hook input priority 100", _named(capture)))
    if capture.inbound:
        refuse = "filter hook input priority filter"
        chains.append(table.chain("refuse_unredirected", refuse, _unredirected(capture)))
    if capture.dns:
        chains.append(table.chain("hold_questions", "filter hook output priority raw", _unanswered()))
    return table.table(TABLE, f"ambit capture {VERSION}", chains)


def release(capture: Capture, *, inherited: bool = True) -> str:
    """The table of a running pod that leaves the mesh: nothing new is redirected, and what is open keeps its
    translation, which the kernel does only while NAT chains exist. `inherited`: see `transparent.released`."""
    if capture.transparent:
        chains = transparent.released(capture.addresses, inherited=inherited)
        return table.table(TABLE, f"ambit transparent release {transparent.VERSION}", chains)
    nat = [
        table.chain("redirect_leaving", _LEAVING_HOOK, []),
        table.chain("redirect_arriving", _ARRIVING_HOOK, []),
    ]
    return table.table(TABLE, f"ambit release {VERSION}", [*_marks(), *nat])


def block() -> str:
    """The table of a pod whose capture is not ready: nothing goes in or out, except within the pod."""
    rule = f'iifname != "lo" meta l4proto {{ {_TCP}, {_UDP} }} drop'
    return table.table(
        TABLE,
        f"ambit block {VERSION}",
        [
            table.chain("drop_arriving", "filter hook input priority filter", [rule]),
            table.chain(
                "drop_leaving", "filter hook output priority filter", [rule.replace("iifname", "oifname")]
            ),
        ],
    )


def replacing(wanted: str) -> str:
    """A script that puts the table `wanted` in the place of whatever table there is, in one transaction."""
    return f"{removing()}{wanted}"


def removing() -> str:
    """A script that removes our table, whether it is there or not."""
    return table.removing(TABLE)


_TCP, _UDP = 6, 17
"""Protocols as numbers: nft prints their names only where there is an /etc/protocols."""
_LEAVING_HOOK = "nat hook output priority -100"
_ARRIVING_HOOK = "nat hook prerouting priority dstnat"
_OPENS = "tcp flags syn / fin,syn,rst,ack"
_OPEN_BEFORE = "tcp flags != syn / fin,syn,rst,ack return"
_MASK = f"0x{MARK_MASK:08x}"
_PROXY = f"0x{PROXY_MARK:08x}"
_CONNECTION = f"0x{CONNECTION_MARK:08x}"


def _marks() -> list[str]:
    return [
        table.chain(
            "mark_arriving",
            "filter hook prerouting priority mangle",
            [_from_proxy("ct mark set " + _CONNECTION)],
        ),
        table.chain(
            "mark_replies",
            "route hook output priority mangle",
            [f"ct mark & {_MASK} == {_CONNECTION} meta mark set ct mark"],
        ),
    ]


def _counted() -> list[str]:
    """As the pod sent it, before any translation. DNS has rules of its own because nft 1.0.6 makes one comparison of
    `udp sport != 53 udp dport != 53`, which then holds for every packet but one with both ports 53."""
    dns = ["udp sport 53 return", "udp dport 53 return"]
    return [
        *(f"\tcounter {name} {{\n\t}}\n" for name in (UDP_RECEIVED, UDP_SENT)),
        table.chain(
            "count_leaving",
            "filter hook output priority raw",
            [*dns, f'oifname != "lo" meta l4proto {_UDP} counter name "{UDP_SENT}"'],
        ),
        table.chain(
            "count_arriving",
            "filter hook input priority filter",
            [*dns, f'iifname != "lo" meta l4proto {_UDP} counter name "{UDP_RECEIVED}"'],
        ),
    ]


def _from_proxy(verdict: str) -> str:
    return f"meta mark & {_MASK} == {_PROXY} {verdict}"


def _leaving(capture: Capture) -> list[str]:
    dns = [f"udp dport 53 redirect to :{DNS_PORT}", f"tcp dport 53 redirect to :{DNS_PORT}"]
    return [
        _from_proxy("return"),
        f"meta mark & {_MASK} == {_CONNECTION} return",
        'oifname "lo" return',
        _OPEN_BEFORE,
        *(dns if capture.dns else []),
        f"meta l4proto {_TCP} redirect to :{OUTBOUND_PORT}",
    ]


def _arriving(capture: Capture) -> list[str]:
    within = [f'iifname "{each}" {_OPENS} redirect to :{OUTBOUND_PORT}' for each in capture.interfaces]
    if not capture.inbound:
        return within
    return [
        _from_proxy("return"),
        *within,
        f"ip saddr {PROBE_ADDRESS_V4} return",
        f"ip6 saddr {PROBE_ADDRESS_V6} return",
        f"tcp dport {HBONE_PORT} return",
        _OPEN_BEFORE,
        f"meta l4proto {_TCP} redirect to :{INBOUND_PLAINTEXT_PORT}",
    ]


def _named(capture: Capture) -> list[str]:
    return [
        f'iifname "{name}" ct status dnat snat {"ip" if address.version == 4 else "ip6"} to {address}'
        for name in capture.interfaces
        for address in _one_per_family(capture.addresses)
    ]


def _one_per_family(addresses: tuple[Address, ...]) -> Iterable[Address]:
    return {each.version: each for each in reversed(addresses)}.values()


def _unredirected(capture: Capture) -> list[str]:
    """The kernel asks the redirection only for the first packet of what it takes for a connection."""
    return [
        'iifname "lo" return',
        *(f'iifname "{each}" tcp dport {OUTBOUND_PORT} return' for each in capture.interfaces),
        f"ip saddr {PROBE_ADDRESS_V4} return",
        f"ip6 saddr {PROBE_ADDRESS_V6} return",
        f"tcp dport {{ {INBOUND_PLAINTEXT_PORT}, {HBONE_PORT} }} return",
        f"{_OPENS} drop",
    ]


def _unanswered() -> list[str]:
    """The error messages about a packet to the DNS port: its UDP destination, bits into the ICMP message, behind the
    8 bytes of that and the IP header of 20 or 40 bytes."""
    port = f"0x{DNS_PORT:04x}"
    return [
        f"icmp type destination-unreachable icmp code port-unreachable @th,240,16 {port} drop",
        f"icmpv6 type destination-unreachable icmpv6 code port-unreachable @th,400,16 {port} drop",
    ]
