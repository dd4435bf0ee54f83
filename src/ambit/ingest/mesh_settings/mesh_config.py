"""The file of the mesh's settings: YAML with the fields of Istio's MeshConfig.

What is not known here is refused, not passed over: a misspelt field would show to all what was to be hidden.
"""

import ipaddress
from typing import Any, Literal

import msgspec

from ambit.core.errors import BadInput
from ambit.core.selector import Requirement, Selector
from ambit.ingest.gateway.topology import GatewayTopology
from ambit.ingest.mesh_settings import authorizers, log_providers, tracers
from ambit.ingest.mesh_settings.log_format import mesh_logs
from ambit.ingest.mesh_settings.providers import FIELD as PROVIDERS
from ambit.ingest.mesh_settings.providers import providers
from ambit.ingest.settings import MeshSettings
from ambit.ingest.visibility import EntryVisibility, VisibilityPolicy
from ambit.model.provider import Authorizer
from ambit.model.service import ServerNames, Visibility
from ambit.model.telemetry import MeshLogs, Printer
from ambit.model.tracing import MeshTracing, Tracer
from ambit.objects.documents import Malformed, read_yaml

KNOWN = "serviceEntryVisibility"
LOG_FIELDS = ("accessLogFile", "accessLogFormat", "accessLogEncoding")
BY_SERVER_NAME, RANGES = "enableWildcardHostServiceEntriesForTls", "wildcardHostRanges"
"""Not of MeshConfig: the first is istiod's variable ENABLE_WILDCARD_HOST_SERVICE_ENTRIES_FOR_TLS."""
_FIELDS = (
    KNOWN,
    *LOG_FIELDS,
    PROVIDERS,
    "defaultProviders",
    tracers.DEFAULT_CONFIG,
    BY_SERVER_NAME,
    RANGES,
)
OPTIONS = {
    "trustDomain": "--trust-domain",
    "trustDomainAliases": "--trust-domain-alias",
    "rootNamespace": "--root-namespace",
}
"""Fields that are options, because node agents and tools are told them too."""
_Word = Literal["VISIBILITY_UNSPECIFIED", "PUBLIC", "NAMESPACE", "NONE"]
_VALUES = {"NAMESPACE": Visibility.NAMESPACE, "NONE": None}


class MeshConfig(msgspec.Struct, frozen=True):
    """What a file says. `ignored` are sentences about fields that mean nothing here."""

    entry_visibility: EntryVisibility | None = None
    ignored: tuple[str, ...] = ()
    logs: MeshLogs = MeshLogs()
    authorizers: tuple[Authorizer, ...] = ()
    tracing: MeshTracing = MeshTracing()
    trusted_proxies: int = 0
    server_names: ServerNames | None = None

    def applied(self, settings: MeshSettings) -> MeshSettings:
        """The settings with what the file says."""
        return msgspec.structs.replace(
            settings,
            entry_visibility=self.entry_visibility,
            logs=self.logs,
            authorizers=self.authorizers,
            tracing=self.tracing,
            trusted_proxies=self.trusted_proxies,
            server_names=self.server_names,
        )


class _Requirement(Requirement, frozen=True, forbid_unknown_fields=True):
    pass


class _Selector(Selector, frozen=True, forbid_unknown_fields=True):
    match_expressions: tuple[_Requirement, ...] = ()


class _Rule(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    namespace_selector: _Selector

    @property
    def selector(self) -> Selector:
        given = self.namespace_selector
        requirements = (Requirement(each.key, each.operator, each.values) for each in given.match_expressions)
        return Selector(given.match_labels, tuple(requirements))


class _Policy(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    visibility: _Word = "PUBLIC"
    matching_rules: tuple[_Rule, ...] = ()


class _Visibility(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    default_visibility: _Word = "PUBLIC"
    policies: tuple[_Policy, ...] = ()
    apply_to_sidecars: bool = False


class _DefaultProviders(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    access_logging: tuple[str, ...] = ()
    tracing: tuple[str, ...] = ()


class _Config(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    tracing: tracers.GivenTracing = tracers.GivenTracing()
    gateway_topology: GatewayTopology = GatewayTopology()


class _File(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    service_entry_visibility: _Visibility | None = None
    access_log_file: str = ""
    access_log_format: str = ""
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    extension_providers: tuple[dict[str, Any], ...] = ()
    default_providers: _DefaultProviders = _DefaultProviders()
    default_config: _Config = _Config()
    enable_wildcard_host_service_entries_for_tls: bool = False
    wildcard_host_ranges: tuple[str, ...] = ()


def mesh_config(text: str, name: str) -> MeshConfig:
    """Reads a file called `name`. Raises BadInput, which names the field."""
    file = _convert(_value(text, name), name)
    logs = mesh_logs(
        file.access_log_file, file.access_log_format, is_json=file.access_log_encoding == "JSON", name=name
    )
    made = MeshConfig()
    collectors: list[Tracer] = []
    printers: list[Printer] = []
    for each in providers(file.extension_providers, name):
        if each.kind in authorizers.KINDS:
            found = authorizers.authorizer(each)
            made = msgspec.structs.replace(made, authorizers=(*made.authorizers, found))
        elif each.kind in tracers.KINDS:
            collectors.append(tracers.tracer(each))
        elif each.kind in log_providers.KINDS:
            printers.append(log_providers.printer(each, logs.printers[0]))
        else:
            ignored = f"{PROVIDERS}: nothing uses {each.name}, which is of the kind {each.kind}"
            made = msgspec.structs.replace(made, ignored=(*made.ignored, ignored))
    tracing = tracers.mesh_tracing(
        collectors, file.default_providers.tracing, file.default_config.tracing, name
    )
    logs = log_providers.with_providers(logs, printers, file.default_providers.access_logging, name)
    trusted = file.default_config.gateway_topology.num_trusted_proxies
    by_name = _server_names(file, name)
    made = msgspec.structs.replace(
        made, logs=logs, tracing=tracing, trusted_proxies=trusted, server_names=by_name
    )
    return _with_visibility(made, file.service_entry_visibility, name)


def _with_visibility(made: MeshConfig, given: _Visibility | None, name: str) -> MeshConfig:
    if given is None:
        return made
    for index, policy in enumerate(given.policies):
        for number, rule in enumerate(policy.matching_rules):
            _check(rule.selector, f"{name}: {KNOWN}.policies[{index}].matchingRules[{number}]")
    policies = tuple(
        VisibilityPolicy(_visibility(each.visibility), tuple(rule.selector for rule in each.matching_rules))
        for each in given.policies
    )
    ignored = (f"{KNOWN}.applyToSidecars: there are no sidecars",) if given.apply_to_sidecars else ()
    return msgspec.structs.replace(
        made,
        entry_visibility=EntryVisibility(_visibility(given.default_visibility), policies),
        ignored=(*ignored, *made.ignored),
    )


def _server_names(file: _File, name: str) -> ServerNames | None:
    if not file.enable_wildcard_host_service_entries_for_tls:
        if file.wildcard_host_ranges:
            raise BadInput(f"{name}: {RANGES} means nothing without {BY_SERVER_NAME}", "set it to true")
        return None
    for index, text in enumerate(file.wildcard_host_ranges):
        where = f"{name}: {RANGES}[{index}]"
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError as problem:
            raise BadInput(
                f"{where}: {problem}", "write a range of IPv4 addresses, 10.20.0.0/16 say"
            ) from None
        if any(network.overlaps(each) for each in _OWN):
            raise BadInput(
                f"{where}: {text} has addresses of the machine itself, or of many", "leave those out"
            )
    return ServerNames(file.wildcard_host_ranges)


_OWN = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""Unspecified, loopback, link-local (a cloud's metadata among it), multicast, reserved."""


def _value(text: str, name: str) -> dict[str, Any]:
    try:
        documents = list(read_yaml(text))
    except Malformed as problem:
        raise BadInput(f"{name} is no YAML: {problem}") from problem
    for duplicate in (each for document in documents for each in document.duplicates):
        raise BadInput(f"{name}, line {duplicate.line}: {duplicate.path} is given twice", "Keep one.")
    values = [document.value for document in documents if document.value is not None]
    if not values:
        return {}
    if len(values) > 1 or not isinstance(values[0], dict):
        raise BadInput(f"{name} is not one mapping of fields", f"write `{KNOWN}:` and its fields below it")
    return values[0]


def _convert(value: dict[str, Any], name: str) -> _File:
    for field in value:
        if option := OPTIONS.get(field):
            raise BadInput(
                f"{name}: {field} is not read from this file", f"give it as {option}, to node agents too"
            )
        if field not in _FIELDS:
            raise BadInput(f"{name}: {field} is not known", f"leave it out: ambit reads {', '.join(_FIELDS)}")
    try:
        return msgspec.convert(value, _File)
    except msgspec.ValidationError as problem:
        raise BadInput(
            f"{name}: {str(problem).replace(' - at `$.', ' - at `')}",
            "Fields are those of Istio's MeshConfig; visibilities are PUBLIC, NAMESPACE and NONE.",
        ) from problem


def _check(selector: Selector, where: str) -> None:
    """A selector that could never match, or means something else than it says (as the API server refuses it)."""
    for index, each in enumerate(selector.match_expressions):
        if bool(each.values) is not (each.operator in ("In", "NotIn")):
            raise BadInput(
                f"{where}.namespaceSelector.matchExpressions[{index}]: {each.operator} with"
                f" {'values' if each.values else 'no values'}",
                "In and NotIn need values; Exists and DoesNotExist have none.",
            )


def _visibility(word: str) -> Visibility | None:
    return _VALUES.get(word, Visibility.PUBLIC)
