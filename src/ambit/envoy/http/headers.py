"""Changes of headers, as the options that Envoy's routes, weights and tables have in common."""

from collections.abc import Iterable
from typing import Any

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from ambit.envoy import filter_state
from ambit.envoy.words import pack
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


def client_certificate(by: str) -> Any:
    """Who called the proxy with this identity, and nobody else."""
    return option("x-forwarded-client-cert", f"By={by};URI={filter_state.CALLER_FORMAT}")


def client_certificate_filter(by: str) -> Any:
    """The same for filters that come after this one."""
    mutation = mutation_rules_pb2.HeaderMutation(append=client_certificate(by))
    message = header_mutation_pb2.HeaderMutation(
        mutations=header_mutation_pb2.Mutations(request_mutations=[mutation])
    )
    return http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.header_mutation", typed_config=pack(message)
    )


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
