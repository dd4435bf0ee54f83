"""Tunnels that are asked for by a service's host name, as those that come from another network.

The name becomes an address before anything else looks at the request: policy, routes and logs then see what they see of
every tunnel. It is an extension of its own, so services may change without draining a connection; and only proxies that
have a network of a name have it, because Lua costs memory.
"""

import re
from collections.abc import Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2, config_source_pb2, extension_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from ambit.envoy import names
from ambit.envoy.words import from_ads, pack

LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?:[1-9][0-9]{0,4}")
_TARGET = re.compile(r"[0-9a-f.:\[\]]+")
_CODE = """local targets = {%s}
function envoy_on_request(handle)
  local headers = handle:headers()
  local target = targets[string.lower(headers:get(":authority") or "")]
  if target == nil then return end
  if not string.find(target, ":", 1, true) then
    local own = string.gsub(handle:streamInfo():downstreamLocalAddress(), "%%d+$", "")
    target = own .. target
  end
  headers:replace(":authority", target)
end
"""


def filter_of(pod: str) -> Any:
    """The place of the extension among the filters of a pod's tunnels."""
    return http_connection_manager_pb2.HttpFilter(
        name=names.hosts(pod),
        config_discovery=config_source_pb2.ExtensionConfigSource(config_source=from_ads(), type_urls=[LUA]),
    )


def extension(pod: str, targets: Mapping[str, str]) -> Any:
    """`targets` by host and port (lower case): a port of the pod, at the address where the tunnel came in; or an
    address with port. What is no name or no target is left out."""
    known = {
        host: target
        for host, target in targets.items()
        if _HOST.fullmatch(host) and _TARGET.fullmatch(target)
    }
    entries = ", ".join(f'["{host}"]="{target}"' for host, target in sorted(known.items()))
    lua = lua_pb2.Lua(default_source_code=base_pb2.DataSource(inline_string=_CODE % entries))
    return extension_pb2.TypedExtensionConfig(name=names.hosts(pod), typed_config=pack(lua))
