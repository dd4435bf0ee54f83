"""A proxy's tables and policies as static resources of one bootstrap, for Envoy's own validation."""

from collections.abc import Iterable
from pathlib import Path

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import any_pb2

from ambit.envoy import names
from ambit.plan.l7 import waypoint
from ambit.plan.values import EXTENSION, ROUTES, PlannedResource
from tests.plan.as_text import accepted_by_envoy

_Manager = http_connection_manager_pb2.HttpConnectionManager
_REQUESTS = (names.ALLOWED, names.ASKS)


def check_tables(resources: Iterable[PlannedResource], directory: Path) -> None:
    """Raises AssertionError with Envoy's reason when Envoy rejects a table or a policy for requests of these."""
    made = bootstrap_pb2.Bootstrap.FromString(waypoint.bootstrap("proxy~a/b~c", run=str(directory)))
    filters = []
    tables = [route_pb2.RouteConfiguration(name="none")]
    for each in resources:
        body = any_pb2.Any.FromString(each.body).value
        if each.type_url == ROUTES:
            tables.append(route_pb2.RouteConfiguration.FromString(body))
        elif each.type_url == EXTENSION and each.name.startswith(_REQUESTS):
            filters.append(extension_pb2.TypedExtensionConfig.FromString(body))
    for index, table in enumerate(tables):
        listener = made.static_resources.listeners.add(name=f"table {index}")
        listener.address.socket_address.address = "127.0.0.1"
        listener.address.socket_address.port_value = 20_000 + index
        manager = _Manager(stat_prefix="requests", route_config=table)
        for each in filters if index == 0 else ():
            manager.http_filters.add(name=each.name, typed_config=each.typed_config)
        router = manager.http_filters.add(name="router")
        router.typed_config.Pack(router_pb2.Router())
        filter_ = listener.filter_chains.add().filters.add(name="http")
        filter_.typed_config.Pack(manager)
    accepted_by_envoy(made, directory)
