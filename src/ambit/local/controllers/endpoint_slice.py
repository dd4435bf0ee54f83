"""Service -> EndpointSlices: the ready addresses behind each Service with a selector.

One set of slices per address family and per set of resolved ports, at most 100 endpoints each. Names are
derived from the content's place (family, ports, number), so writing is repeatable. Conditions follow
discovery.k8s.io/v1: `serving` is readiness, `ready` is readiness and not terminating.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ambit.kube.errors import AlreadyExists, NotFound
from ambit.kube.reflector import Key
from ambit.kube.resource import ENDPOINT_SLICES, NODES, PODS, SERVICES
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import Controller
from ambit.local.controllers.objects import (
    Object,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    short_hash,
    uid_of,
)
from ambit.local.controllers.pods import is_ready, is_terminal

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
ENDPOINTS_PER_SLICE = 100

Port = tuple[str, str, int, str]
"""Name, protocol, number, appProtocol ("" for none)."""


def is_managed(service: Object) -> bool:
    """Its endpoints come from its selector."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def selects(service: Object, pod: Object) -> bool:
    selector: Mapping[str, str] = service["spec"].get("selector") or {}
    return bool(selector) and selector.items() <= labels_of(pod).items()


def resolve_ports(service: Object, pod: Object) -> tuple[Port, ...]:
    """The Service's ports as this pod serves them; a named port that the pod lacks is left out."""
    ports: list[Port] = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort") or port["port"]
        number = target if isinstance(target, int) else _named(pod, target, protocol)
        if number:
            ports.append((port.get("name", ""), protocol, number, port.get("appProtocol", "")))
    return tuple(ports)


def _named(pod: Object, name: str, protocol: str) -> int:
    if name.isdigit():
        return int(name)
    sidecars = (c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always")
    for container in (*(pod["spec"].get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return 0


def plan_slices(service: Object, pods: Sequence[Object], zones: Mapping[str, str]) -> dict[str, Object]:
    """The slices a Service should have, by name. `zones` maps node names to their zone label."""
    spec = service["spec"]
    families = spec.get("ipFamilies") or ["IPv4"]
    publish = bool(spec.get("publishNotReadyAddresses"))
    groups: dict[tuple[str, tuple[Port, ...]], list[Object]] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if is_terminal(pod) or not selects(service, pod):
            continue
        ports = resolve_ports(service, pod)
        if spec.get("ports") and not ports:
            continue
        for family in families:
            address = pod_address(pod, family)
            if address:
                endpoint = _endpoint(service, pod, address, publish, zones)
                groups.setdefault((family, ports), []).append(endpoint)
    for family in families:
        if not any(known == family for known, _ in groups):
            groups[family, ()] = []
    slices: dict[str, Object] = {}
    for (family, ports), endpoints in groups.items():
        for start in range(0, max(1, len(endpoints)), ENDPOINTS_PER_SLICE):
            part = endpoints[start : start + ENDPOINTS_PER_SLICE]
            value = _slice(service, family, ports, part, start // ENDPOINTS_PER_SLICE)
            slices[value["metadata"]["name"]] = value
    return slices


def pod_address(pod: Object, family: str) -> str | None:
    """The pod's address of that family (IPv4 or IPv6), if it has one."""
    status = pod.get("status") or {}
    found = [item["ip"] for item in status.get("podIPs") or () if item.get("ip")]
    for address in found or ([status["podIP"]] if status.get("podIP") else []):
        if (ipaddress.ip_address(address).version == 6) == (family == "IPv6"):
            return str(address)
    return None


def _endpoint(service: Object, pod: Object, address: str, publish: bool, zones: Mapping[str, str]) -> Object:
    serving = is_ready(pod)
    terminating = is_deleting(pod)
    node = pod["spec"].get("nodeName", "")
    namespace, name = key_of(pod)
    endpoint: Object = {
        "addresses": [address],
        "conditions": {
            "ready": publish or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid_of(pod)},
    }
    if node:
        endpoint["nodeName"] = node
        if zones.get(node):
            endpoint["zone"] = zones[node]
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _slice(
    service: Object, family: str, ports: tuple[Port, ...], endpoints: list[Object], number: int
) -> Object:
    namespace, name = key_of(service)
    labels = {**labels_of(service), SERVICE_NAME: name, MANAGED_BY: MANAGER}
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return {
        "metadata": {
            "name": f"{name}-{short_hash([family, ports, number], 5)}",
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(SERVICES, service)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [_port(*port) for port in ports],
    }


def _port(name: str, protocol: str, number: int, app: str) -> dict[str, Any]:
    port: dict[str, Any] = {"name": name, "protocol": protocol, "port": number}
    return {**port, "appProtocol": app} if app else port


class EndpointSliceController(Controller):
    """Services and pods -> EndpointSlices."""

    name: ClassVar[str] = "endpointslice-controller"

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.services = self.watch(SERVICES)
        self.pods = self.watch(PODS, self._selecting)
        self.slices = self.watch(ENDPOINT_SLICES, _service_of)
        self.nodes = self.watch(NODES, lambda _: ())

    def _selecting(self, pod: Object) -> list[Key]:
        space = self.services.in_namespace(key_of(pod)[0])
        return [key_of(service) for service in space if is_managed(service) and selects(service, pod)]

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(key)
        existing = {
            value["metadata"]["name"]: value
            for value in self.slices.in_namespace(key[0])
            if key in _service_of(value)
        }
        wanted: dict[str, Object] = {}
        if service is not None and is_managed(service) and not is_deleting(service):
            zones = {name: labels_of(node).get(ZONE, "") for (_, name), node in self.nodes.items.items()}
            wanted = plan_slices(service, self.pods.in_namespace(key[0]), zones)
        for name, value in wanted.items():
            await self._write(value, existing.get(name))
        for name, old in existing.items():
            if name not in wanted:
                await self.remove(ENDPOINT_SLICES, old)

    async def _write(self, value: Object, old: Object | None) -> None:
        if old is None:
            try:
                await self.client.create(ENDPOINT_SLICES, value)
            except AlreadyExists:
                # Written a moment ago; the cache's event brings this key back.
                return
            return
        same = all((old.get(part) or []) == value[part] for part in ("addressType", "endpoints", "ports"))
        same = same and labels_of(old) == labels_of(value)
        if same and old["metadata"].get("ownerReferences") == value["metadata"]["ownerReferences"]:
            return
        metadata = {**value["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
        try:
            await self.client.replace(ENDPOINT_SLICES, {**value, "metadata": metadata})
        except NotFound:
            return


def _service_of(value: Object) -> list[Key]:
    labels = labels_of(value)
    if labels.get(MANAGED_BY) != MANAGER or SERVICE_NAME not in labels:
        return []
    return [(key_of(value)[0], labels[SERVICE_NAME])]
