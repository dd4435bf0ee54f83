"""The labels of what is made of a Gateway, which selectors of policies look at. `spec.infrastructure` adds to them and
replaces none of ours."""

from ambit.core.names import (
    CANONICAL_NAME_LABEL,
    CANONICAL_REVISION_LABEL,
    DATAPLANE_MODE_LABEL,
    DATAPLANE_MODE_NONE,
    GATEWAY_CLASS_LABEL,
    GATEWAY_NAME_LABEL,
    MANAGED_GATEWAY,
    MANAGED_LABEL,
    MANAGED_WAYPOINT,
)
from ambit.ingest.gateway.edge import label_value
from ambit.model.proxy import ProxyKind
from ambit.objects.gateway import Gateway


def pods_selector(gateway: Gateway) -> dict[str, str]:
    """What its Service and Deployment find its pods by."""
    return {GATEWAY_NAME_LABEL: label_value(gateway.metadata.name)}


def labels_of_objects(gateway: Gateway, kind: ProxyKind) -> dict[str, str]:
    """Of its ServiceAccount, Service and Deployment."""
    return {
        **gateway.spec.infrastructure.labels,
        **pods_selector(gateway),
        GATEWAY_CLASS_LABEL: label_value(gateway.spec.gateway_class_name),
        MANAGED_LABEL: managed_as(kind),
    }


def managed_as(kind: ProxyKind) -> str:
    """Whose objects these are, as their label says."""
    return MANAGED_GATEWAY if kind is ProxyKind.GATEWAY else MANAGED_WAYPOINT


def labels_of_pods(gateway: Gateway, kind: ProxyKind, account: str) -> dict[str, str]:
    """Of its pods; `account` is the name of its ServiceAccount."""
    return {
        CANONICAL_NAME_LABEL: account,
        CANONICAL_REVISION_LABEL: "latest",
        **labels_of_objects(gateway, kind),
        DATAPLANE_MODE_LABEL: DATAPLANE_MODE_NONE,
    }
