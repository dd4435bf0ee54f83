"""IP addresses and networks as the workload API carries them (4 or 16 bytes)."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_port(address: Address, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`: Envoy's text for an original destination."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def parse_host_port(text: str) -> tuple[Address, int]:
    """The reverse of `host_port`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host:
        raise ValueError(f"{text!r} has no port")
    return ipaddress.ip_address(host.strip("[]")), int(port)
