"""What people call the two ends of a connection, as values of the mesh. Pure.

A source is a pod (`NAMESPACE/NAME`, `NAME`, or `NAME.NAMESPACE` as tables print it), what owns pods (their first
one), or an address. A destination is a service (`NAMESPACE/NAME`, `NAME`, a DNS name, a virtual address), else a pod,
with a port. kubectl's `deploy/NAME`, `pod/NAME` and `svc/NAME` are understood where no namespace is called like the
kind.
"""

import ipaddress
from collections.abc import Iterable
from difflib import get_close_matches

import msgspec

from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.insight.manifests import Compiled
from ambit.model.service import Service
from ambit.model.view import holder
from ambit.model.workload import Workload

POD_KINDS = frozenset(
    {
        *("po", "pod", "pods", "deploy", "deployment", "deployments", "rs", "replicaset", "replicasets"),
        *("sts", "statefulset", "statefulsets", "ds", "daemonset", "daemonsets", "job", "jobs"),
        *("cj", "cronjob", "cronjobs"),
    }
)
_NAMES = "names are NAME, with -n, or NAMESPACE/NAME; of a pod also what owns it, as deploy/NAME"
SERVICE_KINDS = frozenset({"svc", "service", "services"})


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
    text, _ = _without_kind(text, compiled, POD_KINDS)
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
        found = holder(view, network, address, client_namespace=namespace)
        if isinstance(found, Service):
            return Destination(port, address, found)
        return Destination(port, address, workload=found)
    host, of_pods = _without_kind(host, compiled, POD_KINDS)
    host, of_services = _without_kind(host, compiled, SERVICE_KINDS)
    service = None if of_pods else _service(host, compiled, namespace)
    if service is not None:
        return Destination(port, service=service)
    workload = None if of_services else _workload(host, compiled, namespace)
    if workload is None:
        services = [f"{each.namespace}/{each.name}" for each in compiled.services]
        if of_pods and (meant := _service(host, compiled, namespace)):
            where, name = _split(host, namespace)
            hint = f"there is a service of that name: {meant.namespace}/{meant.name}:{port}"
            raise BadInput(f"no pod {where}/{name}", hint)
        if of_pods:
            raise _unknown("pod", host, _pods(compiled), namespace)
        if of_services:
            raise _unknown("service", host, services, namespace)
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
    named = [each for each in there if each.name == name]
    several = named or [each for each in there if each.workload_name == name]
    if not several and "/" not in text and "." in text:
        name, _, where = text.rpartition(".")
        return _workload(f"{where}/{name}", compiled, namespace)
    return min(several, key=lambda each: not each.is_pod, default=None)


def _service(text: str, compiled: Compiled, namespace: str) -> Service | None:
    if "/" not in text and "." in text:
        hostname = text.rstrip(".")
        suffix = f".svc.{compiled.settings.cluster_domain}"
        wanted = {hostname, f"{hostname}{suffix}", hostname.removesuffix(".svc") + suffix}
        found = [each for each in compiled.services if each.hostname in wanted]
    else:
        place = _split(text, namespace)
        found = [each for each in compiled.services if (each.namespace, each.name) == place]
    return min(
        (each for each in found if each.is_visible_to(namespace)),
        key=lambda each: (
            not each.is_kubernetes,
            each.namespace != namespace,
            not each.canonical,
            each.key,
        ),
        default=None,
    )


def _split(text: str, namespace: str) -> tuple[str, str]:
    where, _, name = text.rpartition("/")
    return where or namespace, name


def _without_kind(text: str, compiled: Compiled, kinds: frozenset[str]) -> tuple[str, bool]:
    """`deploy/web` or `deployment.apps/web` as `web`, and whether a kind was there."""
    first, slash, name = text.partition("/")
    if not slash or first.partition(".")[0] not in kinds:
        return text, False
    namespaces = {each.namespace for each in compiled.workloads} | {
        each.namespace for each in compiled.services
    }
    return (text, False) if first in namespaces else (name, True)


def _pods(compiled: Compiled) -> list[str]:
    """Names that a pod can be asked by."""
    names = (
        (each.namespace, name) for each in compiled.workloads for name in (each.name, each.workload_name)
    )
    return [f"{namespace}/{name}" for namespace, name in names if name]


def _unknown(what: str, text: str, known: Iterable[str], namespace: str) -> BadInput:
    where, name = _split(text, namespace)
    names = sorted(set(known))
    if not names:
        hint = f"there is no {what} at all; a Deployment in a file makes none: `kubectl get pods -A -o yaml` has them"
        return BadInput(f"no {what} {where}/{name}", hint)
    here = [each.partition("/")[2] for each in names if each.startswith(f"{where}/")]
    elsewhere = [each for each in names if each.endswith(f"/{name}")]
    close = [*(f"{where}/{each}" for each in get_close_matches(name, here, 1)), *elsewhere]
    hint = f"did you mean {close[0]}?" if close else _NAMES
    return BadInput(f"no {what} {where}/{name}", hint)
