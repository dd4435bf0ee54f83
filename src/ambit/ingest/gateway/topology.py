"""How many proxies are in front of a gateway (Istio: `ProxyConfig.gatewayTopology`, in the mesh's settings or, of one
gateway, in the annotation `proxy.istio.io/config` of its pods)."""

from itertools import islice
from typing import Annotated

import msgspec

from ambit.ingest.gateway.conditions import ACCEPTED, no
from ambit.model.status import Condition
from ambit.objects.gateway import Gateway

PROXY_CONFIG = "proxy.istio.io/config"
MOST_PROXIES = 100


class GatewayTopology(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What is not known here is refused: `proxyProtocol` would make connections mean something else."""

    num_trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=MOST_PROXIES)] = 0


class _ProxyConfig(msgspec.Struct, frozen=True, rename="camel"):
    """Fields about other things mean nothing here."""

    gateway_topology: GatewayTopology | None = None


def trusted_proxies(given: Gateway, default: int) -> int | Condition:
    """The number for a Gateway; without an annotation the mesh's. A condition says why what is written is none: a
    guess would believe those who must not be, or judge by the wrong address."""
    annotations = {**given.metadata.annotations, **given.spec.infrastructure.annotations}
    text = annotations.get(PROXY_CONFIG)
    if text is None:
        return default
    # Only who writes it needs a reader of YAML.
    from ambit.objects.documents import Malformed, read_yaml

    try:
        # Of several documents two tell as much as all: aliases can make each of them large.
        found = (each.value for each in read_yaml(text) if each.value is not None)
        values = list(islice(found, 2)) or [{}]
        config = msgspec.convert(values[0] if len(values) == 1 else values, _ProxyConfig)
    except (Malformed, msgspec.ValidationError) as problem:
        return no(ACCEPTED, "InvalidParameters", f"annotation {PROXY_CONFIG}: {problem}")
    return config.gateway_topology.num_trusted_proxies if config.gateway_topology else default
