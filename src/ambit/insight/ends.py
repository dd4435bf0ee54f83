"""What people call the two ends of a connection, as values of the mesh. Pure.

A source is a pod (`NAMESPACE/NAME`, `NAME`), what owns pods (their first one), or an address. A destination is a
service (`NAMESPACE/NAME`, `NAME`, a DNS name, a virtual address), else a pod, with a port.
"""

import ipaddress
from collections.abc import Iterable
from difflib import get_close_matches

import msgspec

from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.insight.manifests import Compiled
from ambit.model.service import Service
from ambit.model.workload import Workload


class Destination(msgspec.Struct, frozen=True):
    """One of service and workload, or neither for an address that is nobody's."""

    port: int
    address: Address | None = None
    service: Service | None = None
    workload: Workload | None = None


def find_source(text: str, compiled: Compiled, namespace: str) -> Workload | Address:
    """Raises BadInput for a name that nothing has."""
    address = _address(text)
    if address is not None:
        return compiled.view().workload_by_address(compiled.settings.network, address) or address
    found = _workload(text, compiled, namespace)
    if found is None:
        raise _unknown("pod", text, _pods(compiled), namespace)
    return found


def find_destination(text: str, compiled: Compiled, namespace: str) -> Destination:
    """Raises BadInput for a name that nothing has, and for a port that is none."""
    host, _, digits = text.rpartition(":")
    if not host or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 65536:
        raise BadInput(f"{text!r} is no destination", "give name and port, as web:80 or 10.96.0.7:80")
    port = int(digits)
    address = _address(host.strip("[]"))
    if address is not None:
        view, network = compiled.view(), compiled.settings.network
        service = view.service_by_address(network, address, client_namespace=namespace)
        workload = None if service else view.workload_by_address(network, address)
        return Destination(port, address, service, workload)
    service = _service(host, compiled, namespace)
    if service is not None:
        return Destination(port, service=service)
    workload = _workload(host, compiled, namespace)
    if workload is None:
        services = (f"{each.namespace}/{each.name}" for each in compiled.services)
        raise _unknown("service or pod", host, [*services, *_pods(compiled)], namespace)
    return Destination(port, workload.addresses[0], workload=workload)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _workload(text: str, compiled: Compiled, namespace: str) -> Workload | None:
    where, name = _split(text, namespace)
    there = [each for each in compiled.workloads if each.namespace == where and each.addresses]
    pods = [each for each in there if each.name == name]
    return next(iter(pods or [each for each in there if each.workload_name == name]), None)


def _service(text: str, compiled: Compiled, namespace: str) -> Service | None:
    if "/" not in text and "." in text:
        hostname = text.rstrip(".")
        suffix = f".svc.{compiled.settings.cluster_domain}"
        wanted = {hostname, f"{hostname}{suffix}", hostname.removesuffix(".svc") + suffix}
        return next((each for each in compiled.services if each.hostname in wanted), None)
    where, name = _split(text, namespace)
    return next((each for each in compiled.services if (each.namespace, each.name) == (where, name)), None)


def _split(text: str, namespace: str) -> tuple[str, str]:
    where, _, name = text.rpartition("/")
    return where or namespace, name


def _pods(compiled: Compiled) -> list[str]:
    return [f"{each.namespace}/{each.name}" for each in compiled.workloads]


def _unknown(what: str, text: str, known: Iterable[str], namespace: str) -> BadInput:
    wanted = "/".join(_split(text, namespace))
    close = get_close_matches(wanted, sorted(set(known)), 1)
    return BadInput(
        f"no {what} {wanted}", f"did you mean {close[0]}?" if close else "names are NAMESPACE/NAME"
    )
