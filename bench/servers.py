"""The servers that load runs against. Answers come from a stock Envoy, so that no server of ours is the limit."""

import json
import os
from typing import Any

from ambit.agent.binary import envoy_binary

HTTP_PORT = 8080
SECOND_HTTP_PORT = 8081
BULK_PORT = 5201
ANSWER = "ok\n"


def http_server() -> list[str]:
    """One thread that answers every request on both HTTP ports with a few bytes."""
    config = {"static_resources": {"listeners": [listener(HTTP_PORT), listener(SECOND_HTTP_PORT)]}}
    return envoy_command(config)


def envoy_command(config: dict[str, Any], concurrency: int = 1) -> list[str]:
    """An Envoy with nothing but a static configuration."""
    return [
        os.fspath(envoy_binary()),
        *("--config-yaml", json.dumps(config), "--concurrency", str(concurrency)),
        *("--disable-hot-restart", "--log-level", "error"),
    ]


def typed(name: str, path: str, **fields: Any) -> dict[str, Any]:
    """An Envoy extension by name and message."""
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{path}", **fields}}


def http_manager(routes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        generate_request_id=False,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [routes]}]},
        http_filters=[
            typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
        ],
        **fields,
    )


def listener(port: int, address: str = "0.0.0.0") -> dict[str, Any]:
    """Answers every request with a few bytes."""
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
    }
    return {
        "name": f"http-{port}",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [http_manager(answer)]}],
    }
