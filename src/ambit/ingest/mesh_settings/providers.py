"""`extensionProviders` of the mesh's settings: services with a name, each of one kind. What a kind means is read by who
has a use for it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ambit.core.errors import BadInput
from ambit.model.provider import ProviderService

T = TypeVar("T")
FIELD = "extensionProviders"
KINDS = (
    *(
        "envoyExtAuthzHttp",
        "envoyExtAuthzGrpc",
        "zipkin",
        "lightstep",
        "datadog",
        "stackdriver",
        "opencensus",
    ),
    *("skywalking", "opentelemetry", "prometheus", "envoyFileAccessLog", "envoyHttpAls", "envoyTcpAls"),
    *("envoyOtelAls", "sds"),
)
"""Of Istio's MeshConfig."""
VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
"""Of a header that proxies send along."""
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Provider(msgspec.Struct, frozen=True):
    """One entry: the fields of its kind, not read yet, and `where` they are, for whoever has to mend them."""

    name: str
    kind: str
    fields: Mapping[str, Any]
    where: str


def providers(given: Sequence[Mapping[str, Any]], file: str) -> Iterator[Provider]:
    """The entries in order. Raises BadInput, which names the file and the field."""
    names: set[str] = set()
    for index, each in enumerate(given):
        where = f"{file}: {FIELD}[{index}]"
        name = each.get("name")
        if not isinstance(name, str) or not name:
            raise BadInput(f"{where}: it has no name", "Policies and Telemetry name providers.")
        if name in names:
            raise BadInput(f"{where}.name: {name!r} is given twice", "Give each provider a name of its own.")
        names.add(name)
        kinds = [key for key in each if key != "name"]
        if len(kinds) != 1 or kinds[0] not in KINDS:
            raise BadInput(
                f"{where} ({name}) has {' and '.join(kinds) or 'nothing'} beside its name",
                f"Give it one of {', '.join(KINDS)}.",
            )
        fields = each[kinds[0]]
        if fields is not None and not isinstance(fields, dict):
            raise BadInput(f"{where}.{kinds[0]}: is no mapping", "Write its fields below it.")
        yield Provider(name, kinds[0], fields or {}, f"{where}.{kinds[0]} ({name})")


def convert(given: Provider, wanted: type[T]) -> T:
    """The fields as a value of this type. Raises BadInput, which names the field."""
    try:
        return msgspec.convert(given.fields, wanted)
    except msgspec.ValidationError as problem:
        text = str(problem).replace(" - at `$.", " - at `")
        raise BadInput(f"{given.where}: {text}", "Fields are those of Istio's MeshConfig.") from problem


def service(given: Provider, text: str, port: int) -> ProviderService:
    """`[<namespace>/]<host name>` and port. Raises BadInput, also for a host outside without a namespace: anybody's
    ServiceEntry could be meant."""
    namespace, slash, hostname = text.rpartition("/")
    if (
        not _HOST.fullmatch(hostname)
        or "." not in hostname
        or (slash and not _NAMESPACE.fullmatch(namespace))
    ):
        raise BadInput(
            f"{given.where}.service: {text!r} names no service",
            "Write its full host name, as in authz.shop.svc.cluster.local, or <namespace>/<host name>.",
        )
    if not namespace and (*hostname.split("."), "", "")[2] != "svc":
        raise BadInput(
            f"{given.where}.service: {text!r} does not say whose it is",
            f"Write <namespace>/{text}, with the namespace of its ServiceEntry.",
        )
    if not 1 <= port <= 65_535:
        raise BadInput(f"{given.where}.port: {port} is no port", "Ports are 1 to 65535.")
    return ProviderService(hostname, port, namespace)


def milliseconds(given: Provider, field: str, text: str) -> int:
    """A duration, as in `1.5s`. Raises BadInput."""
    found = _DURATION.fullmatch(text)
    if found is None or not (value := round(float(found[1]) * 1000)):
        raise BadInput(f"{given.where}.{field}: {text!r} is no duration", "Write seconds, as in 0.5s.")
    return value
