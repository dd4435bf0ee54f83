"""What is no pod as a mesh workload: WorkloadEntries and endpoints of ServiceEntries (istiod: `ambient/workloads.go`).

- In plain text, unless it says that it speaks HBONE itself (label `networking.istio.io/tunnel: http`).
- An address that is a name becomes the workload's host name, which each caller's node resolves.
- A weight of 0 is the usual one, 1.
"""

import ipaddress
from collections.abc import Iterable, Mapping

from ambit.core import hostnames
from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.core.names import CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL, TUNNEL_LABEL
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget
from ambit.model.workload import Locality, Port, TunnelProtocol, Workload
from ambit.objects.networking import EntryEndpoint

ENTRY, WORKLOAD = "ServiceEntry", "WorkloadEntry"


def entry_workload(
    kind: str,
    place: tuple[str, str, str],
    given: EntryEndpoint,
    labels: Mapping[str, str],
    services: Mapping[str, tuple[Port, ...]],
    policies: tuple[str, ...],
    settings: MeshSettings,
) -> Workload:
    """The workload of an endpoint for which `problem` finds nothing. `place` is the namespace, the object's name, and
    what tells its endpoints apart (empty for a WorkloadEntry)."""
    namespace, name, part = place
    address = _address(given.address)
    native = labels.get(TUNNEL_LABEL) == "http"
    uid = f"{settings.cluster_id}/networking.istio.io/{kind}/{namespace}/{name}"
    return Workload(
        uid=f"{uid}/{part}" if part else uid,
        name=name,
        namespace=namespace,
        identity=Identity(settings.trust_domain, namespace, given.service_account or "default"),
        addresses=() if address is None else (address,),
        hostname=given.address.lower() if address is None else "",
        network=given.network or settings.network,
        tunnel=TunnelProtocol.HBONE if native else TunnelProtocol.NONE,
        canonical_name=labels.get(CANONICAL_NAME_LABEL) or labels.get("app") or name,
        canonical_revision=labels.get(CANONICAL_REVISION_LABEL) or labels.get("version") or "latest",
        workload_name=name,
        native_tunnel=native,
        policies=policies,
        cluster_id=settings.cluster_id,
        services=dict(services),
        locality=Locality(*[*given.locality.split("/"), "", ""][:3]),
        capacity=given.weight or 1,
    )


def ports_of(given: EntryEndpoint, target: ServiceTarget) -> tuple[Port, ...]:
    """A service's ports on this endpoint: by the names in its own `ports`, else the service's numbers."""
    found = []
    for each in target.targets:
        number = given.ports.get(each.name)
        if number is None:
            number = each.target if isinstance(each.target, int) else given.ports.get(each.target)
        if number is not None:
            found.append(Port(each.service, number))
    return tuple(found)


def problem(given: EntryEndpoint, *, names: bool) -> str:
    """Why nobody can be sent to this endpoint; empty when they can. `names` are allowed or not."""
    address = given.address
    if not address:
        return "an endpoint without an address is behind a gateway of its network, which this version does not use"
    if address.startswith("unix://"):
        return f"{address} is a socket of one machine"
    if _address(address) is not None:
        return ""
    if not hostnames.is_name(address):
        return f"{address!r} is neither an IP address nor a DNS name"
    return "" if names else f"{address!r} is no IP address; names need resolution: DNS"


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def parts(endpoints: Iterable[EntryEndpoint]) -> Iterable[tuple[str, EntryEndpoint]]:
    """Each endpoint with what tells it apart: its address, and a number when an earlier one has the same."""
    seen: dict[str, int] = {}
    for given in endpoints:
        number = seen[given.address] = seen.get(given.address, 0) + 1
        yield (given.address if number == 1 else f"{given.address}/{number}"), given
