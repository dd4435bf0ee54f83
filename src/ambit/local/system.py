"""The objects of the mesh's own parts on the laptop (`system.yaml`), with an instance's settings filled in."""

from importlib import resources
from string import Template
from typing import Any

import yaml

from ambit import __version__
from ambit.core.names import MESH_CONFIG_KEY
from ambit.kube import resource
from ambit.local.config import ClusterConfig
from ambit.local.layout import PODS_V4, PODS_V6, SERVICES_V4, SERVICES_V6, StateDirectory

KINDS = {
    each.kind: each
    for each in (
        resource.NAMESPACES,
        resource.SERVICE_ACCOUNTS,
        resource.CONFIG_MAPS,
        resource.CLUSTER_ROLES,
        resource.CLUSTER_ROLE_BINDINGS,
        resource.ROLES,
        resource.ROLE_BINDINGS,
        resource.SERVICES,
        resource.DEPLOYMENTS,
        resource.DAEMON_SETS,
    )
}
"""The kinds that occur in `system.yaml`."""


def system_objects(config: ClusterConfig, state: StateDirectory) -> tuple[dict[str, Any], ...]:
    """In the order in which they must be created."""
    text = resources.files("ambit.local").joinpath("system.yaml").read_text()
    filled = Template(text).substitute(
        VERSION=__version__,
        TRUST_DOMAIN=config.trust_domain,
        ROOT_NAMESPACE=config.root_namespace,
        STATE=str(state.root),
        SERVICES_V4=SERVICES_V4,
        SERVICES_V6=SERVICES_V6,
        PODS_V4=PODS_V4,
        PODS_V6=PODS_V6,
    )
    objects = tuple(yaml.load_all(filled, Loader=yaml.CSafeLoader))
    for each in objects:
        if each["kind"] == "ConfigMap" and config.mesh_config:
            each["data"] = {MESH_CONFIG_KEY: config.mesh_config}
    return objects
