"""Services: defaults, cluster addresses per ipFamilyPolicy, validity. Rules: core/v1 validation and the
service registry."""

import ipaddress
from typing import Any

from ambit.local.apiserver.failures import ApiFailure, Cause, invalid
from ambit.local.apiserver.metadata import invalid_value, is_label, is_subdomain, required, unsupported
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.strategies.base import Cluster, Strategy, setdefaults
from ambit.local.layout import OWN_NETWORKS

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_NODE_PORTS = range(30000, 32768)


class Services(Strategy):
    def default(self, body: Json) -> None:
        spec = body.setdefault("spec", {})
        setdefaults(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
        if spec["sessionAffinity"] == "ClientIP":
            setdefaults(spec, {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}})
        for port in spec.get("ports") or ():
            setdefaults(port, {"protocol": "TCP"})
            if spec["type"] != "ExternalName":
                setdefaults(port, {"targetPort": port.get("port")})
        if spec["type"] != "ExternalName":
            setdefaults(spec, {"internalTrafficPolicy": "Cluster"})
        if spec["type"] in {"NodePort", "LoadBalancer"}:
            setdefaults(spec, {"externalTrafficPolicy": "Cluster"})
        if spec["type"] == "LoadBalancer":
            setdefaults(spec, {"allocateLoadBalancerNodePorts": True})

    def create(self, cluster: Cluster, body: Json) -> None:
        body["status"] = {"loadBalancer": {}}
        self._allocate(cluster, body, None)

    def update(self, cluster: Cluster, body: Json, old: Json) -> None:
        spec, before = body["spec"], old["spec"]
        if spec["type"] != "ExternalName" and before["type"] != "ExternalName":
            _agree(spec, before)
            setdefaults(spec, {key: before[key] for key in ("ipFamilies", "ipFamilyPolicy") if key in before})
            _keep_node_ports(spec, before)
        if spec["type"] == "ExternalName" and before["type"] != "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            cluster.addresses.release(old)
            return
        self._allocate(cluster, body, old)

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        spec = body["spec"]
        causes = _validate_ports(spec, "spec.ports")
        if spec["type"] not in _TYPES:
            causes.append(unsupported("spec.type", spec["type"], _TYPES))
        if spec["type"] == "ExternalName" and not is_subdomain((spec.get("externalName") or "").rstrip(".")):
            causes.append(required("spec.externalName"))
        if old is not None and "ExternalName" not in {spec["type"], old["spec"]["type"]}:
            named = spec.get("clusterIPs") or [""]
            if named[0] != old["spec"].get("clusterIP", named[0]):
                causes.append(invalid_value("spec.clusterIPs[0]", [named[0]], "may not change once set"))
        affinities = ("ClientIP", "None")
        if spec["sessionAffinity"] not in affinities:
            causes.append(unsupported("spec.sessionAffinity", spec["sessionAffinity"], affinities))
        for index, text in enumerate(spec.get("externalIPs") or ()):
            try:
                ipaddress.ip_address(text)
            except ValueError:
                causes.append(invalid_value(f"spec.externalIPs[{index}]", text, "must be a valid IP address"))
        return causes

    def warnings(self, body: Json) -> list[str]:
        return [
            f"spec.externalIPs[{index}]: {text} is an address of the cluster itself and leads to nobody else"
            for index, text in enumerate(body["spec"].get("externalIPs") or ())
            if any(ipaddress.ip_address(text) in network for network in OWN_NETWORKS)
        ]

    def deleted(self, cluster: Cluster, body: Json) -> None:
        cluster.addresses.release(body)

    def rejected(self, cluster: Cluster, body: Json, old: Json | None) -> None:
        held = (old or {}).get("spec", {}).get("clusterIPs") or []
        taken = [text for text in body["spec"].get("clusterIPs") or [] if text not in held]
        cluster.addresses.release({"spec": {"clusterIPs": taken}})
        if old is not None:
            cluster.addresses.adopt(old)

    def _allocate(self, cluster: Cluster, body: Json, old: Json | None) -> None:
        spec = body["spec"]
        if spec["type"] == "ExternalName":
            return
        _default_families(spec)
        if not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]] if spec.get("clusterIP") else []
        if spec["clusterIPs"][:1] != ["None"]:
            held = (old or {}).get("spec", {}).get("clusterIPs") or []
            self._claim(cluster, body, held)
        spec["clusterIP"] = spec["clusterIPs"][0]
        _node_ports(cluster, spec)

    def _claim(self, cluster: Cluster, body: Json, held: list[str]) -> None:
        """Takes named addresses, then fills up one per family; gives back what an update no longer has."""
        spec = body["spec"]
        for index, text in enumerate(spec["clusterIPs"]):
            if text not in held and (wrong := cluster.addresses.claim(text)):
                cause = invalid_value(f"spec.clusterIPs[{index}]", [text], wrong)
                raise invalid("Service", "", body["metadata"].get("name", ""), [cause])
        families = spec["ipFamilies"]
        for index, text in enumerate(spec["clusterIPs"]):
            actual = f"IPv{ipaddress.ip_address(text).version}"
            if index < len(families) and families[index] != actual:
                families[index] = actual
        del spec["clusterIPs"][len(families) :]
        for family in families[len(spec["clusterIPs"]) :]:
            try:
                spec["clusterIPs"].append(cluster.addresses.allocate(family))
            except LookupError as error:
                message = f"Internal error occurred: failed to allocate a serviceIP: {error}"
                raise ApiFailure(500, "InternalError", message) from error
        given_back = [text for text in held if text not in spec["clusterIPs"]]
        cluster.addresses.release({"spec": {"clusterIPs": given_back}})


def _agree(spec: Json, before: Json) -> None:
    """Makes `clusterIP` and `clusterIPs` say the same after an update that knew only one of them."""
    held = list(before.get("clusterIPs") or ())
    for key in ("clusterIP", "clusterIPs"):
        if not spec.get(key) and key in before:
            spec[key] = before[key]
    if not spec.get("clusterIPs"):
        return
    if spec["clusterIPs"] == held:
        spec["clusterIPs"] = [spec["clusterIP"], *held[1:]]
    else:
        spec["clusterIP"] = spec["clusterIPs"][0]


def _default_families(spec: Json) -> None:
    """SingleStack unless asked otherwise; a dual-stack policy adds the other family."""
    families: list[str] = list(spec.get("ipFamilies") or [])
    named = [text for text in spec.get("clusterIPs") or [spec.get("clusterIP")] if text and text != "None"]
    setdefaults(spec, {"ipFamilyPolicy": "RequireDualStack" if len(families) > 1 else "SingleStack"})
    families += ["IPv6" if ":" in text else "IPv4" for text in named[len(families) :]]
    if not families:
        families.append("IPv4")
    if spec["ipFamilyPolicy"] == "SingleStack":
        families = families[:1]
    elif len(families) == 1:
        families.append("IPv6" if families[0] == "IPv4" else "IPv4")
    spec["ipFamilies"] = families


def _keep_node_ports(spec: Json, before: Json) -> None:
    if spec["type"] not in {"NodePort", "LoadBalancer"}:
        return
    held = {(port["port"], port["protocol"]): port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        number = held.get((port.get("port"), port.get("protocol")))
        if number and not port.get("nodePort"):
            port["nodePort"] = number


def _node_ports(cluster: Cluster, spec: Json) -> None:
    wanted = spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    )
    ports = spec.get("ports") or []
    if not wanted or all(port.get("nodePort") for port in ports):
        return
    taken = {
        port.get("nodePort")
        for entry in cluster.store.select("services")
        for port in entry.decode()["spec"].get("ports") or ()
    }
    free = (number for number in _NODE_PORTS if number not in taken)
    for port in ports:
        if not port.get("nodePort"):
            port["nodePort"] = next(free)


def _validate_ports(spec: Json, path: str) -> list[Cause]:
    ports: list[Any] = spec.get("ports") or []
    causes: list[Cause] = []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and spec["type"] != "ExternalName":
        causes.append(required(path))
    names: set[str] = set()
    pairs: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        causes += _validate_port(port, where, several=len(ports) > 1)
        name = port.get("name") or ""
        if name and name in names:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{where}.name"))
        names.add(name)
        pair = (port.get("port"), port.get("protocol"))
        if pair in pairs:
            message = f'Duplicate value: {{"port":{pair[0]},"protocol":"{pair[1]}"}}'
            causes.append(Cause("FieldValueDuplicate", message, where))
        pairs.add(pair)
    return causes


def _validate_port(port: Json, where: str, *, several: bool) -> list[Cause]:
    causes = []
    name, number, target = port.get("name") or "", port.get("port"), port.get("targetPort")
    if several and not name:
        causes.append(required(f"{where}.name"))
    if name and not is_label(name):
        causes.append(invalid_value(f"{where}.name", name, "a lowercase RFC 1123 label is required"))
    rule = "must be between 1 and 65535, inclusive"
    if number is None or not 1 <= number <= 65535:
        causes.append(invalid_value(f"{where}.port", number or 0, rule))
    if isinstance(target, int) and not 1 <= target <= 65535:
        causes.append(invalid_value(f"{where}.targetPort", target, rule))
    protocols = ("SCTP", "TCP", "UDP")
    if port.get("protocol") not in protocols:
        causes.append(unsupported(f"{where}.protocol", port.get("protocol"), protocols))
    return causes
