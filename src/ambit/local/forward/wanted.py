"""Which services are wanted on ports of the host: the list that `ambit local forward` keeps in a
ConfigMap."""

import msgspec

from ambit.objects.documents import Malformed, read_value

CONFIG_MAP = "host-forwards"
KEY = "forwards.yaml"


class WantedForward(msgspec.Struct, frozen=True, rename="camel"):
    """127.0.0.1:host_port on the host leads to `port` of the service, both of `protocol` (TCP, UDP)."""

    namespace: str
    service: str
    port: int
    host_port: int
    protocol: str = "TCP"


def parse_wanted(text: str) -> tuple[WantedForward, ...]:
    """The entries of the ConfigMap. Raises ValueError with the reason when it is not such a list."""
    try:
        return msgspec.convert(read_value(text) or [], tuple[WantedForward, ...])
    except (Malformed, msgspec.ValidationError) as problem:
        raise ValueError(f"ConfigMap {CONFIG_MAP}, key {KEY}: {problem}") from problem
