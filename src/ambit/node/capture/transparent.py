"""nftables rules of a pod that is captured without NAT: the kernel hands packets as they are to the proxy's sockets.

What the pod opens is routed to the loopback interface (`ambit.node.netns.steering`), arrives there and is given to the
proxy's listener, which sees the real destination as its own address. No connection is tracked or translated.
1. Every TCP packet is given to whom it belongs, not only the first: so a handshake that the kernel answered with a
   cookie (a flood) ends at the proxy and never at a listener of the pod's own;
2. what the proxy does not take (it is away) is refused. What arrives from outside has the proxy's mark for that, and so
   has the answer, by which it gets out;
3. nothing enters or leaves except through sockets of the proxy, by its mark, and the host's probes: in both directions
   the last look, for a socket that is bound to an interface or was there before;
4. nobody outside has the pod's own address or one of loopback: the kernel's own check is off (`steering`). Nor goes
   anything of the pod out from loopback: the proxy goes on from the client's address, and a neighbour would take the
   pod for itself;
5. DNS over UDP goes to the agent by NAT, as in `ruleset`; only that is tracked;
6. a pod that leaves: what is new is marked as if the proxy had sent it, and goes its way; what is open stays. What the
   pod opens is known by the connection's mark, what it accepts by the socket's, which inherits that of the first
   packet: a client may come directly from the same port as the proxy that delivers another connection of that client,
   and connection tracking takes the two for one. When the pod comes back meanwhile, what was opened directly is
   `spared`.
"""

from collections.abc import Iterator

from ambit.core.address import Address
from ambit.core.names import (
    DIRECT_MARK,
    DNS_PORT,
    HBONE_PORT,
    INBOUND_PLAINTEXT_PORT,
    MARK_MASK,
    OUTBOUND_PORT,
    PROBE_ADDRESS_V4,
    PROBE_ADDRESS_V6,
    PROXY_MARK,
)
from ambit.node.capture import table

VERSION = 6
"""Changes whenever the rules do; it is in the table's comment for people."""

_TCP = "meta l4proto 6"
_OPENS = "tcp flags syn / fin,syn,rst,ack"
_MARK = f"0x{PROXY_MARK:08x}"
_MASK = f"0x{MARK_MASK:08x}"
_FROM_PROXY = f"meta mark & {_MASK} == {_MARK}"
_SPARED = f"ct mark & {_MASK} == {_MARK}"
_UNMARK = f'iifname "lo" {_FROM_PROXY} meta mark set 0x00000000'
"""A reset for nobody would carry the mark (`steering`): out of the pod, past the proxy that waits."""
_ARRIVES = "filter hook prerouting priority mangle"


def chains(addresses: tuple[Address, ...], *, dns: bool, spared: bool) -> list[str]:
    """What captures a pod with these addresses."""
    found = [
        table.chain("give", _ARRIVES, [*_given(addresses, dns)]),
        table.chain("only_proxy_in", "filter hook input priority filter", [*_only_proxy_in(spared)]),
        table.chain("only_proxy_out", "filter hook output priority filter", [*_only_proxy_out()]),
    ]
    if spared:
        found.append(table.chain("spare", "route hook output priority mangle", [_go_directly()]))
    elif dns:
        for name, hook in (("track_no_tcp_in", "prerouting"), ("track_no_tcp_out", "output")):
            found.append(table.chain(name, f"filter hook {hook} priority raw", [f"{_TCP} notrack"]))
    if dns:
        found.append(table.chain("redirect_questions", "nat hook output priority -100", [*_questions()]))
    return found


def released(addresses: tuple[Address, ...], *, inherited: bool) -> list[str]:
    """What lets a pod go; `inherited`: sockets that it accepts have the mark of the first packet."""
    begins = f"{_OPENS} ct mark set {_MARK}"
    arrives = f"{_TCP} meta mark set 0x{DIRECT_MARK:08x}" if inherited else begins
    return [
        table.chain("pass_arriving", _ARRIVES, [_UNMARK, *_forged(addresses), f'iifname != "lo" {arrives}']),
        table.chain(
            "pass_leaving",
            "route hook output priority mangle",
            [f"{_FROM_PROXY} return", begins, _go_directly()],
        ),
        # The socket's own idea of its way is the loopback interface with its long packets.
        table.chain(
            "shorten",
            "filter hook postrouting priority mangle",
            ['oifname != "lo" tcp flags syn / syn,rst tcp option maxseg size set rt mtu'],
        ),
    ]


def _given(addresses: tuple[Address, ...], dns: bool) -> Iterator[str]:
    yield f"{_UNMARK} return"
    yield from _forged(addresses)
    yield from _probes("saddr", "return")
    yield f'iifname != "lo" {_TCP} meta mark set {_MARK}'
    yield f'iifname != "lo" tcp dport {HBONE_PORT} return'
    # Answers of other nodes' proxies: most of what arrives, and it finds its socket by itself.
    yield f'iifname != "lo" tcp sport {HBONE_PORT} tcp flags != syn / fin,syn,rst,ack return'
    yield f'iifname != "lo" {_TCP} tproxy to :{INBOUND_PLAINTEXT_PORT} accept'
    for own in ("ip daddr 127.0.0.0/8", "ip6 daddr ::1", *_each(addresses, "daddr")):
        yield f'iifname "lo" {own} return'
    for loopback in ("ip saddr 127.0.0.0/8", "ip6 saddr ::1"):
        yield f'iifname "lo" {loopback} {_TCP} reject with tcp reset'
    for match, port in ((("tcp dport 53", DNS_PORT),) if dns else ()) + ((_TCP, OUTBOUND_PORT),):
        yield f'iifname "lo" {match} tproxy ip to 127.0.0.1:{port} accept'
        yield f'iifname "lo" {match} tproxy ip6 to [::1]:{port} accept'
    # Of what goes on, too: the kernel itself answers from no address that is not its own.
    yield f'iifname "lo" {_TCP} reject with tcp reset'
    yield f"{_OPENS} reject with tcp reset"


def _forged(addresses: tuple[Address, ...]) -> Iterator[str]:
    for own in ("ip saddr 127.0.0.0/8", "ip6 saddr ::1", *_each(addresses, "saddr")):
        yield f'iifname != "lo" {own} drop'


def _only_proxy_in(spared: bool) -> Iterator[str]:
    yield 'iifname "lo" return'
    yield from _probes("saddr", "return")
    if spared:
        yield f"{_SPARED} return"
    yield f"{_TCP} socket mark & {_MASK} != {_MARK} drop"


def _only_proxy_out() -> Iterator[str]:
    yield 'oifname "lo" return'
    yield f"{_FROM_PROXY} return"
    yield from _probes("daddr", "tcp flags != syn / fin,syn,rst,ack return")
    yield f"{_TCP} drop"


def _questions() -> Iterator[str]:
    yield f"{_FROM_PROXY} return"
    yield 'oifname "lo" return'
    yield f"udp dport 53 redirect to :{DNS_PORT}"


def _go_directly() -> str:
    return f"{_SPARED} meta mark set ct mark"


def _probes(end: str, verdict: str) -> Iterator[str]:
    yield f"ip {end} {PROBE_ADDRESS_V4} {verdict}"
    yield f"ip6 {end} {PROBE_ADDRESS_V6} {verdict}"


def _each(addresses: tuple[Address, ...], end: str) -> Iterator[str]:
    for address in addresses:
        yield f"{'ip' if address.version == 4 else 'ip6'} {end} {address}"
