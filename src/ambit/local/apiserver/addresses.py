"""Gives Services their cluster addresses, from the instance's two ranges; rebuilt from the stored Services
at start."""

import ipaddress
from typing import Any

from ambit.local import layout

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_RESERVED = 64
"""The first addresses are for Services that name theirs (kubernetes, DNS)."""


class ServiceAddresses:
    """Which addresses are taken. Addresses are given in order, and a released one is not reused at once."""

    def __init__(self, services: list[dict[str, Any]]) -> None:
        self._taken: set[Ip] = set()
        self._next = {4: _RESERVED, 6: _RESERVED}
        for service in services:
            self.adopt(service)

    def adopt(self, service: dict[str, Any]) -> None:
        """Notes the addresses a stored Service holds."""
        for text in service.get("spec", {}).get("clusterIPs") or ():
            if text and text != "None":
                self._taken.add(ipaddress.ip_address(text))

    def release(self, service: dict[str, Any]) -> None:
        for text in service.get("spec", {}).get("clusterIPs") or ():
            if text and text != "None":
                self._taken.discard(ipaddress.ip_address(text))

    def claim(self, text: str) -> str | None:
        """Takes one named address; says what is wrong with it, or None."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return "must be a valid IP address"
        network = layout.SERVICES_V4 if address.version == 4 else layout.SERVICES_V6
        if address not in network:
            return (
                "failed to allocate IP "
                + text
                + ": the provided IP ("
                + text
                + f") is not in the valid range. The range of valid IPs is {network}"
            )
        if address in self._taken:
            return f"failed to allocate IP {text}: provided IP is already allocated"
        self._taken.add(address)
        return None

    def allocate(self, family: str) -> str:
        """The next free address of `IPv4` or `IPv6`. Raises LookupError when the range is full."""
        network = layout.SERVICES_V4 if family == "IPv4" else layout.SERVICES_V6
        size = network.num_addresses - 1
        start = self._next[network.version]
        for step in range(size - _RESERVED):
            offset = _RESERVED + (start - _RESERVED + step) % (size - _RESERVED)
            address: Ip = network[offset]
            if address not in self._taken:
                self._taken.add(address)
                self._next[network.version] = offset + 1
                return str(address)
        raise LookupError(f"the range {network} is full")
