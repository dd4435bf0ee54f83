"""A client of HTTP/3: an Envoy that takes requests in plain text and sends them on by QUIC."""

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.plan.dataplane.conftest import next_base_id
from tests.plan.dataplane.network import Host
from tests.plan.dataplane.served import ENVOY, until
from tests.plan.waypoint.echo import DELAY, Answer, ask

_TYPE = "type.googleapis.com/envoy."
PORT = 3000
"""Of its loopback, where it takes requests."""
FIXED = "x-by-name"
"""A request with this header goes by the connection of one name, whatever host it is for."""


def settings(server: str, root: str, name: str) -> str:
    """What such an Envoy is started with, as JSON; see Http3Client."""
    clusters = [_cluster("host", server, root, ""), _cluster("fixed", server, root, name)]
    return json.dumps({"static_resources": {"listeners": [_listener()], "clusters": clusters}})


class Http3Client:
    """Sends from `host` to port 443 of `server`, and believes the authority of `root`. `name` is what connections of
    requests with the header FIXED ask for; others ask for the request's host."""

    def __init__(self, directory: Path, host: Host, server: Host, root: str, name: str) -> None:
        self._host = host
        self._printed = (directory / "http3.log").open("wb")
        config = directory / "http3.json"
        config.write_text(settings(str(server.four), root, name))
        command = [
            "ip",
            "netns",
            "exec",
            host.netns.name,
            str(ENVOY),
            "-c",
            str(config),
            "--concurrency",
            "1",
        ]
        self._envoy = subprocess.Popen(
            [*command, "--base-id", str(next_base_id())], stdout=self._printed, stderr=subprocess.STDOUT
        )
        until(self._listens, "the client of HTTP/3")

    def _listens(self) -> bool:
        try:
            self._host.connect("127.0.0.1", PORT).close()
        except OSError:
            return False
        return True

    def get(self, host: str, path: str = "/", *, by_name: bool = False, delay: float = 0) -> Answer:
        """The answer to one request, which the server gives after so many seconds."""
        headers = {DELAY: str(delay), **({FIXED: "1"} if by_name else {})}
        return ask(self._host.connect("127.0.0.1", PORT), path, host=host, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._envoy.terminate()
        self._envoy.wait(60)
        self._printed.close()


def _listener() -> dict[str, Any]:
    routes = [
        {"match": {"prefix": "/", "headers": [{"name": FIXED}]}, "route": {"cluster": "fixed"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "host"}},
    ]
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "client",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": "in", "address": _address("127.0.0.1", PORT), "filter_chains": [{"filters": filters}]}


def _cluster(name: str, server: str, root: str, fixed: str) -> dict[str, Any]:
    tls = {"common_tls_context": {"validation_context": {"trusted_ca": {"inline_string": root}}}}
    by_quic = {
        "@type": f"{_TYPE}extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
        "upstream_tls_context": {**tls, **({"sni": fixed} if fixed else {})},
    }
    options = {
        "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http3_protocol_options": {}},
        "upstream_http_protocol_options": {} if fixed else {"auto_sni": True},
    }
    endpoint = {"endpoint": {"address": _address(server, 443)}}
    return {
        "name": name,
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": by_quic},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
