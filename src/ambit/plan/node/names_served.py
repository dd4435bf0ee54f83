"""By which host names tunnels from other networks ask for a pod, and what they get (ztunnel
`inbound.rs::find_inbound_upstream`)."""

from ambit.core.address import host_port
from ambit.core.names import RESERVED_PORTS
from ambit.model.service import Service
from ambit.model.view import MeshView
from ambit.model.workload import ApplicationTunnel, TunnelledAs, Workload
from ambit.plan.values import NodeSettings


def host_targets(workload: Workload, view: MeshView, settings: NodeSettings) -> dict[str, str]:
    """By `host:port` of its services: the pod's port; for one that is handed the address that was asked for, an address
    of the service. Ports of the mesh are left out. Of two services of one name the first by key counts."""
    found: dict[str, str] = {}
    for key in sorted(workload.services):
        service = view.service(key)
        if service is None:
            continue
        for each in service.ports:
            target = _target(service, workload, each.service, settings)
            if target:
                found.setdefault(f"{service.hostname.lower()}:{each.service}", target)
    return found


def _target(service: Service, workload: Workload, port: int, settings: NodeSettings) -> str:
    target = service.target_port(workload, port)
    if not target or target in RESERVED_PORTS:
        return ""
    if not _is_told(workload.application_tunnel):
        return str(target)
    hosts = [each for each in service.addresses if each.prefix is None]
    if not hosts:
        return ""
    chosen = min(hosts, key=lambda each: (each.network != settings.network, each.address.version))
    return host_port(chosen.address, port)


def _is_told(tunnel: ApplicationTunnel | None) -> bool:
    return tunnel is not None and tunnel.protocol is TunnelledAs.PROXY
