"""Which addresses the hosts of ServiceEntries get that have none of their own (istiod: `ipallocate`).

Pure, and incremental: entries are noted as they come and go. Rules (each has a test of the same number):

1. A host gets an IPv4 and an IPv6 address when its entry has no `addresses`, its `resolution` is not NONE, and the
   label `networking.istio.io/enable-autoallocate-ip` is not `false`. Otherwise the entry's status has none.
2. What an entry's status says stays, also when another mesh wrote it. So addresses outlive any control plane.
3. No two hosts hold one address. Of two that claim it the older entry keeps it. An address that somebody wrote into
   `spec.addresses` is his, but one of the range only as long as no host was given it: it would take others' traffic.
4. A new address is found from the name of entry and host: one that is deleted and made again gets the same.
5. An address that is free again is given to others last: pods may still remember it.
6. Nobody takes all of them: a namespace that has its share of a range is given no further ones of it. What statuses
   say stays also beyond that.
"""

import hashlib
import ipaddress
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from ambit.core.address import Address, Network
from ambit.core.names import AUTO_ALLOCATE_LABEL
from ambit.objects.networking import AllocatedAddress, ServiceEntry

IPV4_RANGE = ipaddress.IPv4Network("240.240.0.0/16")
IPV6_RANGE = ipaddress.IPv6Network("2001:2::/48")
REMEMBERED = 16384
"""Addresses of a range that are free again and given to others last; a quarter of the IPv4 range."""
FEW = 64
"""So many places of a full range are looked at for an address that was the host's own."""
SHARE = 8
"""One namespace has this part of a range at the most: 8,191 IPv4 addresses."""

Holder = tuple[str, str]
"""Key of an entry, and host."""
_Rank = tuple[int, tuple[str, str, str], str]
"""The smallest holds: `_WRITTEN`, `_GIVEN`, then `_WISHED`, and of these the oldest."""
_WRITTEN, _GIVEN, _WISHED = range(3)
"""Written in a spec; found here, or said by a status; written in a spec, but of the range."""


class AddressBook:
    """Who has which address. Not thread-safe."""

    def __init__(self, ranges: Iterable[Network] = (IPV4_RANGE, IPV6_RANGE), share: int = SHARE) -> None:
        self._ranges = tuple(ranges)
        self._share = share
        self._entries: dict[str, ServiceEntry] = {}
        self._reserved: dict[Holder, dict[int, Address]] = {}
        """By IP version: found here, perhaps not yet seen in a status."""
        self._claims: dict[Address, dict[Holder, _Rank]] = {}
        self._claimed: dict[str, set[Address]] = {}
        """By entry."""
        self._freed: dict[Network, dict[Address, Holder]] = {network: {} for network in self._ranges}
        """By whom it was held last."""
        self._of_namespace: Counter[tuple[str, Network]] = Counter()
        self._of_all: Counter[Network] = Counter()

    def note(self, entry: ServiceEntry) -> tuple[str, ...]:
        """An entry was added or modified. Returns the keys of others that may get other addresses by that."""
        key = entry.metadata.key
        self._entries[key] = entry
        hosts = set(entry.spec.hosts) if is_allocated(entry) else set()
        for holder in [each for each in self._reserved if each[0] == key and each[1] not in hosts]:
            del self._reserved[holder]
        return self._claim(entry)

    def forget(self, key: str) -> tuple[str, ...]:
        """An entry was deleted. Returns the keys of others that may get other addresses by that."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return ()
        for host in entry.spec.hosts:
            self._reserved.pop((key, host), None)
        return self._withdraw(key, frozenset())

    def wanted(self, key: str) -> tuple[AllocatedAddress, ...]:
        """What the status of a noted entry is to say; the same as long as nothing else is noted."""
        entry = self._entries[key]
        if not is_allocated(entry):
            return ()
        found: list[AllocatedAddress] = []
        for host in dict.fromkeys(entry.spec.hosts):
            for network in self._ranges:
                address = self._held(entry, host, network.version) or self._find((key, host), network)
                if address is not None:
                    found.append(AllocatedAddress(str(address), host))
        return tuple(found)

    def _held(self, entry: ServiceEntry, host: str, version: int) -> Address | None:
        holder = (entry.metadata.key, host)
        known = (*_in_status(entry, host), *self._reserved.get(holder, {}).values())
        for address in known:
            if address.version == version and self._owner(address) == holder:
                return address
        return None

    def has_its_share(self, namespace: str) -> bool:
        """Whether it is given no further addresses of some range."""
        return any(self._has_its_share(namespace, network) for network in self._ranges)

    def _has_its_share(self, namespace: str, network: Network) -> bool:
        return self._of_namespace[namespace, network] >= _usable(network) // self._share

    def _find(self, holder: Holder, network: Network) -> Address | None:
        if self._has_its_share(_namespace(holder[0]), network):
            return None
        freed = self._freed[network]
        candidates = _candidates(holder, network)
        if self._of_all[network] + len(freed) >= _usable(network):
            own = (each for each in islice(candidates, FEW) if freed.get(each) == holder)
            last = next(own, next(iter(freed), None))
            return self._reserve(holder, last) if last is not None else None
        for address in candidates:
            if address not in self._claims and freed.get(address, holder) == holder:
                return self._reserve(holder, address)
        return None

    def _reserve(self, holder: Holder, address: Address) -> Address:
        key, host = holder
        entry, reserved = self._entries[key], self._reserved.setdefault(holder, {})
        lost = address.version in reserved
        reserved[address.version] = address
        if lost:
            self._claim(entry)
        else:
            self._hold(address, holder, (_GIVEN, entry.metadata.age, host))
            self._claimed.setdefault(key, set()).add(address)
            self._count_of(key, [address], 1)
        return address

    def _owner(self, address: Address) -> Holder:
        claims = self._claims[address]
        return min(claims, key=claims.__getitem__)

    def _claim(self, entry: ServiceEntry) -> tuple[str, ...]:
        """Makes the claims of an entry what it says now. Returns the keys of others whose claims meet with them."""
        key = entry.metadata.key
        claims: dict[Address, tuple[Holder, _Rank]] = {}
        if is_allocated(entry):
            for host in reversed(entry.spec.hosts):
                reserved = self._reserved.get((key, host), {}).values()
                for address in (*reserved, *_in_status(entry, host)):
                    claims[address] = (key, host), (_GIVEN, entry.metadata.age, host)
        for address in _in_spec(entry):
            wish = _WRITTEN if self._range(address) is None else _WISHED
            claims[address] = (key, ""), (wish, entry.metadata.age, "")
        concerned = set(self._withdraw(key, frozenset(claims)))
        for address, (holder, rank) in claims.items():
            others = self._claims.get(address, {})
            for each in [each for each in others if each[0] == key]:
                del others[each]
            self._hold(address, holder, rank)
            others = self._claims[address]
            concerned.update(other for other, _ in others)
        self._claimed[key] = set(claims)
        self._count_of(key, claims, 1)
        return tuple(sorted(concerned - {key}))

    def _hold(self, address: Address, holder: Holder, rank: _Rank) -> None:
        network = self._range(address)
        if network is not None and address not in self._claims:
            self._freed[network].pop(address, None)
            self._of_all[network] += 1
        self._claims.setdefault(address, {})[holder] = rank

    def _withdraw(self, key: str, kept: frozenset[Address]) -> tuple[str, ...]:
        concerned: set[str] = set()
        before = self._claimed.pop(key, set())
        self._count_of(key, before, -1)
        for address in before - kept:
            others = self._claims[address]
            own = [each for each in others if each[0] == key]
            for holder in own:
                del others[holder]
            concerned.update(other for other, _ in others)
            if not others:
                del self._claims[address]
                self._free(address, own[0])
        return tuple(concerned)

    def _free(self, address: Address, by: Holder) -> None:
        network = self._range(address)
        if network is not None:
            self._of_all[network] -= 1
            freed = self._freed[network]
            freed[address] = by
            if len(freed) > REMEMBERED:
                del freed[next(iter(freed))]

    def _range(self, address: Address) -> Network | None:
        """Of which it could be given to somebody."""
        for network in self._ranges:
            if network.version == address.version and 0 < int(address) - int(network[0]) <= _usable(network):
                return network
        return None

    def _count_of(self, key: str, addresses: Iterable[Address], more: int) -> None:
        for address in addresses:
            network = self._range(address)
            if network is not None:
                self._of_namespace[_namespace(key), network] += more


def is_allocated(entry: ServiceEntry) -> bool:
    """Whether its hosts get addresses."""
    return (
        not entry.spec.addresses
        and entry.spec.resolution != "NONE"
        and entry.metadata.labels.get(AUTO_ALLOCATE_LABEL, "").lower() != "false"
    )


def given_less(entry: ServiceEntry) -> tuple[str, ...]:
    """Its hosts that were given an IPv6 address only: both are given at once, so the other one was not to be had
    (rule 6). IPv6 addresses do not run out."""
    if not is_allocated(entry):
        return ()
    hosts = dict.fromkeys(entry.spec.hosts)
    return tuple(host for host in hosts if {each.version for each in _in_status(entry, host)} == {6})


def holder_of(address: str, entries: Iterable[ServiceEntry]) -> ServiceEntry | None:
    """Which of `entries` has a host that was given this address of the mesh's own (rule 3)."""
    wanted = _address(address)
    if wanted is None or not any(
        wanted.version == each.version and wanted in each for each in (IPV4_RANGE, IPV6_RANGE)
    ):
        return None
    given = (
        each
        for each in entries
        if is_allocated(each) and any(wanted in _in_status(each, host) for host in each.spec.hosts)
    )
    return min(given, key=lambda each: each.metadata.age, default=None)


def _in_status(entry: ServiceEntry, host: str) -> Iterator[Address]:
    for given in entry.status.addresses:
        address = _address(given.value) if given.host == host else None
        if address is not None:
            yield address


def _in_spec(entry: ServiceEntry) -> Iterator[Address]:
    for text in entry.spec.addresses:
        address = _address(text)
        if address is not None:
            yield address


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _namespace(key: str) -> str:
    return key.partition("/")[0]


def _usable(network: Network) -> int:
    """All but its first and last address."""
    return network.num_addresses - 2


def _candidates(holder: Holder, network: Network) -> Iterator[Address]:
    """Every usable address of the range, in an order that the name decides on, from first to last: in a range that is
    nearly full neighbours of each other would all search the same part of it."""
    usable = _usable(network)
    number = int.from_bytes(hashlib.blake2b("/".join(holder).encode(), digest_size=16).digest())
    start, stride = number % usable, 1 + number // usable % usable
    while math.gcd(stride, usable) != 1:
        stride += 1
    first = network.network_address + 1
    for step in range(min(usable, 1 << 20)):
        yield first + (start + step * stride) % usable
