"""ServiceEntries as mesh services (istiod: `ambient/services.go`, `serviceentry`).

- One service for each host, called `<namespace>/<host>`; of several entries of a namespace with one host the oldest
  counts, and the others are told. Among namespaces the oldest that is everybody's is canonical, of those with its host
  or an address of it.
- A host or address that is a Service's, a pod's or another namespace's is left out: AMB0306 (`ambit.ingest.owners`);
  so is an address in a spec that the mesh gave to somebody else's host.
- Addresses are the entry's, IP addresses or ranges, for all its hosts; without them what the control plane allocated
  for the host (`status.addresses`).
- `resolution: NONE` lets connections go on to the address that was dialled. STATIC has IP addresses, DNS names or
  addresses as endpoints; DNS without endpoints resolves the host itself. A selector chooses pods and WorkloadEntries.
- DYNAMIC_DNS: its waypoint leads TLS to hosts of a wildcard by the name in the client's hello, where the mesh's
  settings have that (`ambit.model.server_names`).
- `exportTo: ["."]` (or its own namespace) hides it from other namespaces, `["~"]` from all. Istio ambient ignores it.
  What the mesh's settings allow is the most (`ambit.ingest.visibility`).
- `location` means nothing to node proxies, as in Istio ambient.
- Only TCP ports: nothing else is captured.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from ambit.core import hostnames
from ambit.core.finding import Finding, Level
from ambit.ingest.istio.allocation import given_less
from ambit.ingest.istio.endpoint import problem
from ambit.ingest.preference import DISTRIBUTION_ANNOTATION, preference
from ambit.ingest.protocols import protocol_named, protocol_of_port
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget, TargetPort
from ambit.ingest.visibility import exported, narrower
from ambit.model.service import (
    AppProtocol,
    BalancingMode,
    LoadBalancing,
    ServerNames,
    Service,
    VirtualAddress,
    Visibility,
)
from ambit.model.workload import GatewayAddress, Port
from ambit.objects.networking import EntryEndpoint, EntryPort, ServiceEntry, ServiceEntrySpec

KIND = "ServiceEntry"
NONE, STATIC, DYNAMIC = "NONE", "STATIC", "DYNAMIC_DNS"
_Say = Callable[[str, Level, str, str], None]
"""Takes a code, a level, a path and a text."""
RESOLVED = frozenset({"DNS", "DNS_ROUND_ROBIN"})


class Owned(Protocol):
    """Who has an address or a host that is not the entry's to claim, in words; empty when nobody has."""

    def of_address(self, address: str) -> str: ...

    def of_written(self, address: str) -> str: ...

    def of_host(self, host: str) -> str: ...


class Host(msgspec.Struct, frozen=True):
    """What one host of an entry comes to. `endpoints` are those that only this host has, or all of its entry's."""

    service: Service
    target: ServiceTarget
    endpoints: tuple[EntryEndpoint, ...] = ()


class CompiledEntry(msgspec.Struct, frozen=True):
    hosts: tuple[Host, ...]
    findings: tuple[Finding, ...]


def service_entry(
    given: ServiceEntry,
    same_host: Sequence[Sequence[ServiceEntry]],
    same_address: Iterable[ServiceEntry],
    owners: Owned,
    distribution: str,
    waypoint: GatewayAddress | None,
    allowed: Visibility | None,
    settings: MeshSettings,
    server_names: ServerNames | None = None,
) -> CompiledEntry:
    """Reads an object. `same_host` are the entries with the same host, for each of its hosts, that everybody sees or
    that are of its own namespace, itself among them; `same_address` those with one of its addresses; `distribution` is
    the namespace's wish, `waypoint` takes what is sent to its hosts, `allowed` is the most that may be seen of it,
    `server_names` what a host of resolution DYNAMIC_DNS may lead to."""
    spec, meta = given.spec, given.metadata
    findings: list[Finding] = []

    def say(code: str, level: Level, path: str, text: str) -> None:
        findings.append(Finding(code, level, meta.reference(KIND), path, text))

    visibility = narrower(exported(given), allowed)
    if visibility is None:
        return CompiledEntry((), ())
    if visibility is Visibility.PUBLIC and _names_namespaces(spec):
        text = "node proxies cannot show a host to some namespaces only, so all see it"
        say("AMB0305", Level.WARNING, "spec.exportTo", text)
    if spec.resolution == DYNAMIC and not _may_be_led(given, waypoint, say, settings):
        return CompiledEntry((), tuple(findings))
    for host in given_less(given):
        text = f"{host} has no IPv4 address: its namespace has its share of them, or none is left"
        say("AMB0307", Level.WARNING, f"spec.hosts[{spec.hosts.index(host)}]", text)
    endpoints = _endpoints(spec, say)
    virtual = _written(spec, owners, say, settings)
    first = min(same_address, key=_age, default=given)
    hosts = []
    for index, (host, others) in enumerate(zip(spec.hosts, same_host, strict=True)):
        path = f"spec.hosts[{index}]"
        oldest = min(others, key=_age)
        rival = min((each for each in others if each.metadata.namespace == meta.namespace), key=_age)
        if rival.metadata.name != meta.name:
            say(
                "AMB0303",
                Level.WARNING,
                path,
                f"{rival.metadata.reference(KIND)} is older and has {host} already",
            )
            continue
        if host in spec.hosts[:index]:
            continue
        if wrong := _wrong_host(host, spec):
            say("AMB0301", Level.ERROR, path, wrong)
            continue
        owner = owners.of_host(host.lower())
        if owner:
            say("AMB0306", Level.ERROR, path, f"{host} is a name of {owner}")
            continue
        addresses = virtual if spec.addresses else _allocated(given, host, owners, say, settings)
        own = endpoints
        if not spec.endpoints and spec.workload_selector is None and spec.resolution in RESOLVED:
            own = (EntryEndpoint(address=host),)
        hosts.append(
            _host(
                given,
                host,
                own,
                addresses,
                canonical=oldest is given and first is given,
                distribution=distribution,
                waypoint=waypoint,
                visibility=visibility,
                settings=settings,
                server_names=server_names,
            )
        )
    return CompiledEntry(tuple(hosts), tuple(findings))


def _host(
    given: ServiceEntry,
    host: str,
    endpoints: tuple[EntryEndpoint, ...],
    virtual: Iterable[VirtualAddress],
    *,
    canonical: bool,
    distribution: str,
    waypoint: GatewayAddress | None,
    visibility: Visibility,
    settings: MeshSettings,
    server_names: ServerNames | None,
) -> Host:
    spec, meta = given.spec, given.metadata
    # Canonical and of this form are Services only (`Service.is_kubernetes`).
    canonical = canonical and not host.lower().startswith(f"{meta.name}.{meta.namespace}.svc.")
    by_name = spec.resolution == DYNAMIC
    ports = [port for port in spec.ports if port.protocol.upper() != "UDP"]
    ports = [port for port in ports if not by_name or _protocol(port) is AppProtocol.TLS]
    service = Service(
        name=meta.name,
        namespace=meta.namespace,
        hostname=host.lower(),
        addresses=tuple(virtual),
        ports=tuple(Port(port.number, port.target_port or port.number) for port in ports),
        app_protocols={
            port.number: protocol
            for port in ports
            if (protocol := _protocol(port)) is not AppProtocol.UNKNOWN
        },
        subject_alt_names=spec.subject_alt_names,
        waypoint=waypoint,
        load_balancing=LoadBalancing(mode=BalancingMode.PASSTHROUGH)
        if spec.resolution == NONE
        else preference((meta.annotations.get(DISTRIBUTION_ANNOTATION, ""), distribution)),
        canonical=canonical,
        visibility=visibility,
        server_names=server_names if by_name else None,
    )
    targets = tuple(TargetPort(port.name, port.number, port.target_port or port.number) for port in ports)
    target = ServiceTarget(
        key=service.key,
        namespace=meta.namespace,
        name=meta.name,
        selector=spec.workload_selector.labels if spec.workload_selector and spec.resolution != NONE else {},
        targets=targets,
        ports=service.ports,
    )
    return Host(service, target, endpoints)


def _wrong_host(host: str, spec: ServiceEntrySpec) -> str:
    """Why it can be no host of the entry; empty when it can."""
    if not hostnames.is_pattern(host):
        return f"{host!r} is no DNS name"
    is_wide = host.startswith("*")
    is_local = host.lower().rstrip(".").endswith(".localhost")
    if spec.resolution == DYNAMIC and (not is_wide or host == "*" or is_local):
        return f"{host}: DYNAMIC_DNS is for hosts that begin with `*.`"
    is_itself = not spec.endpoints and spec.workload_selector is None and spec.resolution in RESOLVED
    return f"{host} is no name that could be resolved" if is_wide and is_itself else ""


def _may_be_led(
    given: ServiceEntry, waypoint: GatewayAddress | None, say: _Say, settings: MeshSettings
) -> bool:
    """Whether connections to hosts of an entry of resolution DYNAMIC_DNS can be led by the names in clients' hellos."""
    spec = given.spec
    if settings.server_names is None:
        text = "DYNAMIC_DNS is off: enableWildcardHostServiceEntriesForTls of the mesh's settings has it done for TLS"
        say("AMB0301", Level.ERROR, "spec.resolution", text)
        return False
    if spec.location == "MESH_INTERNAL":
        say(
            "AMB0301",
            Level.ERROR,
            "spec.location",
            "DYNAMIC_DNS leads out of the mesh, so not to MESH_INTERNAL",
        )
        return False
    if spec.endpoints or spec.workload_selector is not None:
        say(
            "AMB0301",
            Level.ERROR,
            "spec.resolution",
            "DYNAMIC_DNS has neither endpoints nor a workloadSelector",
        )
        return False
    if waypoint is None:
        text = "a waypoint does DYNAMIC_DNS: without the label istio.io/use-waypoint connections are refused"
        say("AMB0301", Level.WARNING, "metadata.labels", text)
    for index, port in enumerate(spec.ports):
        if _protocol(port) is not AppProtocol.TLS:
            text = (
                f"{port.protocol or 'no protocol'}: DYNAMIC_DNS leads TLS, by the name in the client's hello"
            )
            say("AMB0301", Level.ERROR, f"spec.ports[{index}].protocol", text)
    return True


def _endpoints(spec: ServiceEntrySpec, say: _Say) -> tuple[EntryEndpoint, ...]:
    found = []
    for index, endpoint in enumerate(spec.endpoints if spec.resolution != NONE else ()):
        text = problem(endpoint, names=spec.resolution in RESOLVED)
        if text:
            say("AMB0304", Level.WARNING, f"spec.endpoints[{index}].address", text)
        else:
            found.append(endpoint)
    return tuple(found)


def _written(
    spec: ServiceEntrySpec, owners: Owned, say: _Say, settings: MeshSettings
) -> list[VirtualAddress]:
    """The addresses in the entry that count."""
    found: list[VirtualAddress] = []
    for index, text in enumerate(spec.addresses):
        try:
            address = _virtual(text, settings)
        except ValueError:
            say("AMB0302", Level.ERROR, f"spec.addresses[{index}]", f"{text!r} is no IP address or range")
            continue
        owner = owners.of_written(text)
        if owner:
            say("AMB0306", Level.ERROR, f"spec.addresses[{index}]", f"{text} is the address of {owner}")
        else:
            found.append(address)
    return found


def _names_namespaces(spec: ServiceEntrySpec) -> bool:
    return "*" not in spec.export_to and any(each != "~" for each in spec.export_to)


def _age(given: ServiceEntry) -> tuple[str, str, str]:
    return given.metadata.age


def _virtual(text: str, settings: MeshSettings) -> VirtualAddress:
    """Raises ValueError."""
    network = ipaddress.ip_network(text, strict=False)
    prefix = None if network.prefixlen == network.max_prefixlen else network.prefixlen
    return VirtualAddress(settings.network, network.network_address, prefix)


def _allocated(
    given: ServiceEntry, host: str, owners: Owned, say: _Say, settings: MeshSettings
) -> Iterable[VirtualAddress]:
    found = []
    for index, each in enumerate(given.status.addresses):
        if each.host == host:
            try:
                address = ipaddress.ip_address(each.value)
            except ValueError:
                continue
            owner = owners.of_address(each.value)
            if owner:
                text = f"{each.value} is the address of {owner}"
                say("AMB0306", Level.ERROR, f"status.addresses[{index}].value", text)
            else:
                found.append(VirtualAddress(settings.network, address))
    return found


def _protocol(port: EntryPort) -> AppProtocol:
    return protocol_named(port.protocol) if port.protocol else protocol_of_port(port.name)
