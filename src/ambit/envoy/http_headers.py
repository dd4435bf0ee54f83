"""Changes of headers, as the options that Envoy's routes, weights and tables have in common."""

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2

from ambit.model.http import HeaderChanges

HOST = "host"
_OPTION = base_pb2.HeaderValueOption


def change_requests(holder: Any, changes: HeaderChanges) -> None:
    """`holder` (a route, a share or a table) makes these changes to requests. The host is no header to Envoy: see
    `new_host`."""
    holder.request_headers_to_add.extend(_added(changes))
    holder.request_headers_to_remove.extend(name for name in changes.remove if name != HOST)


def change_responses(holder: Any, changes: HeaderChanges) -> None:
    holder.response_headers_to_add.extend(_added(changes))
    holder.response_headers_to_remove.extend(changes.remove)


def new_host(changes: HeaderChanges) -> str:
    """What `changes` set the host to; empty when they leave it."""
    return next((value for name, value in changes.set if name == HOST), "")


def option(name: str, template: str) -> Any:
    """The header has this value (an access-log format) and no other."""
    return _option(name, template, _OPTION.OVERWRITE_IF_EXISTS_OR_ADD)


def _added(changes: HeaderChanges) -> Iterable[Any]:
    for pairs, action in (
        (changes.set, _OPTION.OVERWRITE_IF_EXISTS_OR_ADD),
        (changes.add, _OPTION.APPEND_IF_EXISTS_OR_ADD),
    ):
        for name, value in pairs:
            if name != HOST:
                yield _option(name, value.replace("%", "%%"), action)


def _option(name: str, template: str, action: int) -> Any:
    return _OPTION(
        header=base_pb2.HeaderValue(key=name, value=template), append_action=action, keep_empty_value=True
    )
