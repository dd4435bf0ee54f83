"""What is told of requests to a service that has no proxy between: it travels with the service, and nodes that read the
requests tell it."""

import msgspec

from ambit.model.proxy import Proxy
from ambit.model.telemetry import TelemetryPolicy


class InlineTelemetry(msgspec.Struct, frozen=True):
    """All that is said of it at its Gateway (`proxy`)."""

    proxy: Proxy
    policies: tuple[TelemetryPolicy, ...]
