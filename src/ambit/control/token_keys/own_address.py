"""Addresses of this machine."""

import socket

from ambit.core.address import Address


def is_own_address(address: Address) -> bool:
    """Whether this machine, or the pod of this process, has the address. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return str(probe.getsockname()[0]) == str(address)
    except OSError:
        return False
