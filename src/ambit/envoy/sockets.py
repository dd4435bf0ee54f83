"""Options of sockets on which connections are accepted."""

from typing import Any

from envoy.config.core.v3 import socket_option_pb2

from ambit.envoy import defaults

_SOL_SOCKET, _SO_KEEPALIVE, _SO_MARK = 1, 9, 36
_SOL_TCP, _TCP_KEEPIDLE, _TCP_KEEPINTVL, _TCP_KEEPCNT = 6, 4, 5, 6


def keepalive() -> list[Any]:
    """A client that is gone is noticed by the kernel: there are no idle timeouts."""
    options = (
        (_SOL_SOCKET, _SO_KEEPALIVE, 1),
        (_SOL_TCP, _TCP_KEEPIDLE, defaults.KEEPALIVE_IDLE),
        (_SOL_TCP, _TCP_KEEPINTVL, defaults.KEEPALIVE_INTERVAL),
        (_SOL_TCP, _TCP_KEEPCNT, defaults.KEEPALIVE_PROBES),
    )
    return [_option("keepalive", *each) for each in options]


def marked(mark: int) -> Any:
    """What is sent carries this mark."""
    return _option("mark", _SOL_SOCKET, _SO_MARK, mark)


def _option(description: str, level: int, name: int, value: int) -> Any:
    return socket_option_pb2.SocketOption(
        description=description,
        level=level,
        name=name,
        int_value=value,
        state=socket_option_pb2.SocketOption.STATE_PREBIND,
    )
