"""Sockets that take packets to addresses that are not this host's (Linux `tproxy.rst`)."""

import socket

_IPV6_TRANSPARENT = 75


def make_transparent(sock: socket.socket, mark: int) -> None:
    """Also what it sends from such addresses carries `mark`, by which it is routed. Raises OSError without
    CAP_NET_ADMIN."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
