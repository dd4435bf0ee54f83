"""Pods and pod templates: defaults (core/v1 `SetDefaults_*`), bindings of accounts, validity."""

import ipaddress
from collections.abc import Iterator
from typing import Any

from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.metadata import invalid_value, is_label, is_subdomain, required, unsupported
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.strategies.base import Cluster, Strategy, setdefaults

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")


def default_pod_spec(spec: Json) -> None:
    """Fills in a pod's or template's spec in place."""
    setdefaults(
        spec,
        {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        },
    )
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            _default_container(container, host_network=bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: Json, *, host_network: bool) -> None:
    image = container.get("image") or ""
    tagged = ":" in image.rpartition("/")[2] or "@" in image
    latest = not tagged or image.endswith(":latest")
    setdefaults(
        container,
        {
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "Always" if latest else "IfNotPresent",
        },
    )
    for port in container.get("ports") or ():
        setdefaults(port, {"protocol": "TCP"})
        if host_network:
            setdefaults(port, {"hostPort": port.get("containerPort")})
    for name in _PROBES:
        if container.get(name):
            _default_probe(container[name])
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            setdefaults(reference, {"apiVersion": "v1"})
    resources = container["resources"]
    for name, value in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, value)


def _default_probe(probe: Json) -> None:
    setdefaults(
        probe, {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    )
    if probe.get("httpGet"):
        setdefaults(probe["httpGet"], {"path": "/", "scheme": "HTTP"})
    if probe.get("grpc"):
        setdefaults(probe["grpc"], {"service": ""})


def _default_volume(volume: Json) -> None:
    for kind in ("configMap", "secret", "projected", "downwardAPI"):
        if isinstance(volume.get(kind), dict):
            setdefaults(volume[kind], {"defaultMode": 420})
    if volume.get("hostPath"):
        setdefaults(volume["hostPath"], {"type": ""})
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken"):
            setdefaults(source["serviceAccountToken"], {"expirationSeconds": 3600})
        _default_fields(source.get("downwardAPI") or {})
    _default_fields(volume.get("downwardAPI") or {})
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}


def _default_fields(source: Json) -> None:
    for item in source.get("items") or ():
        if item.get("fieldRef"):
            setdefaults(item["fieldRef"], {"apiVersion": "v1"})


def validate_pod_spec(spec: Any, path: str) -> list[Cause]:
    """What is wrong with a pod's or template's spec (a subset of core validation)."""
    if not isinstance(spec, dict):
        return [required(path)]
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    names: set[str] = set()
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            causes += _validate_container(container, f"{path}.{field}[{index}]", names, volumes)
    causes += _validate_volumes(spec.get("volumes") or [], f"{path}.volumes")
    policies = ("Always", "OnFailure", "Never")
    if spec.get("restartPolicy") not in policies:
        causes.append(unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), policies))
    dns = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    if spec.get("dnsPolicy") not in dns:
        causes.append(unsupported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), dns))
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        try:
            ipaddress.ip_address(alias.get("ip", ""))
        except ValueError:
            rule = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            causes.append(invalid_value(f"{path}.hostAliases[{index}].ip", alias.get("ip"), rule))
    return causes


def _validate_volumes(volumes: list[Json], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        name = volume.get("name") or ""
        where = f"{path}[{index}]"
        if not name:
            yield required(f"{where}.name")
        elif not is_label(name):
            yield invalid_value(f"{where}.name", name, "must be a DNS label")
        elif name in seen:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{where}.name")
        seen.add(name)
        if len(volume) > 2:
            yield Cause(
                "FieldValueForbidden", "Forbidden: may not specify more than 1 volume type", f"{where}"
            )


def _validate_container(container: Json, path: str, names: set[str], volumes: set[Any]) -> list[Cause]:
    causes: list[Cause] = []
    name = container.get("name") or ""
    if not name:
        causes.append(required(f"{path}.name"))
    elif not is_label(name):
        causes.append(invalid_value(f"{path}.name", name, "a lowercase RFC 1123 label is required"))
    elif name in names:
        causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
    names.add(name)
    if not container.get("image"):
        causes.append(required(f"{path}.image"))
    for index, port in enumerate(container.get("ports") or ()):
        causes += _validate_port(port, f"{path}.ports[{index}]")
    return [*causes, *_validate_environment(container, path), *_validate_parts(container, path, volumes)]


def _validate_environment(container: Json, path: str) -> list[Cause]:
    causes = []
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            causes.append(required(f"{path}.env[{index}].name"))
        elif variable.get("value") and variable.get("valueFrom"):
            rule = "may not be specified when `value` is not empty"
            causes.append(invalid_value(f"{path}.env[{index}].valueFrom", "", rule))
    return causes


def _validate_parts(container: Json, path: str, volumes: set[Any]) -> list[Cause]:
    """Mounts and probes."""
    causes = []
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            message = f'Not found: "{mount.get("name", "")}"'
            causes.append(Cause("FieldValueNotFound", message, f"{where}.name"))
        if not mount.get("mountPath"):
            causes.append(required(f"{where}.mountPath"))
    bare = [
        probe
        for probe in _PROBES
        if container.get(probe) and not any(container[probe].get(handler) for handler in _HANDLERS)
    ]
    return [*causes, *(required(f"{path}.{probe}", "must specify a handler type") for probe in bare)]


def _validate_port(port: Json, path: str) -> list[Cause]:
    causes = []
    number = port.get("containerPort")
    if number is None:
        causes.append(required(f"{path}.containerPort"))
    elif not 1 <= number <= 65535:
        causes.append(
            invalid_value(f"{path}.containerPort", number, "must be between 1 and 65535, inclusive")
        )
    protocols = ("SCTP", "TCP", "UDP")
    if port.get("protocol") not in protocols:
        causes.append(unsupported(f"{path}.protocol", port.get("protocol"), protocols))
    return causes


_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")


def _frozen_spec(spec: Json) -> Json:
    """A pod's spec without what may change after creation."""
    kept = {key: value for key, value in spec.items() if key not in _MUTABLE and key != "nodeName"}
    for field in ("containers", "initContainers"):
        if field in kept:
            kept[field] = [
                {key: value for key, value in container.items() if key not in {"image", "resources"}}
                for container in kept[field]
            ]
    return kept


class Pods(Strategy):
    def default(self, body: Json) -> None:
        default_pod_spec(body.setdefault("spec", {}))
        setdefaults(body["spec"], {"enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority"})
        setdefaults(body["spec"], {"priority": 0})

    def create(self, cluster: Cluster, body: Json) -> None:
        spec = body["spec"]
        setdefaults(spec, {"serviceAccountName": "default", "serviceAccount": "default"})
        setdefaults(spec, {"tolerations": []})
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if not any(one.get("key") == key for one in spec["tolerations"]):
                toleration = {"key": key, "operator": "Exists", "effect": "NoExecute"}
                spec["tolerations"].append({**toleration, "tolerationSeconds": 300})
        _mount_account_token(body)
        body["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        causes = validate_pod_spec(body.get("spec"), "spec")
        node = body["spec"].get("nodeName")
        if node and not is_subdomain(node):
            causes.append(invalid_value("spec.nodeName", node, "must be a DNS subdomain"))
        if old is None:
            return causes
        before = old["spec"].get("nodeName")
        if _frozen_spec(body["spec"]) != _frozen_spec(old["spec"]) or (before and before != node):
            rule = (
                "Forbidden: pod updates may not change fields other than `spec.containers[*].image`, "
                "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only "
                "additions "
                "to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 "
                "if it was "
                "previously negative)"
            )
            causes.append(Cause("FieldValueForbidden", rule, "spec"))
        return causes


def _mount_account_token(body: Json) -> None:
    """What the ServiceAccount admission plugin adds: a projected token volume in every container."""
    spec = body["spec"]
    if spec.get("automountServiceAccountToken") is False:
        return
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    bare = [
        container
        for container in containers
        if not any(mount.get("mountPath") == where for mount in container.get("volumeMounts") or ())
    ]
    if not bare:
        return
    name = "kube-api-access"
    if not any(volume.get("name") == name for volume in spec.get("volumes") or ()):
        spec["volumes"] = [*(spec.get("volumes") or ()), _token_volume(name)]
    for container in bare:
        mount = {"name": name, "readOnly": True, "mountPath": where}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _token_volume(name: str) -> Json:
    root = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    reference = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": root},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": reference}]}},
    ]
    return {"name": name, "projected": {"defaultMode": 420, "sources": sources}}


def qos_class(spec: Json) -> str:
    """Guaranteed, Burstable or BestEffort, from requests and limits of cpu and memory."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    found = [container.get("resources") or {} for container in containers]
    if not any(one.get("requests") or one.get("limits") for one in found):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= (one.get("limits") or {}).keys()
        and (one.get("requests") or one.get("limits")) == one.get("limits")
        for one in found
    )
    return "Guaranteed" if guaranteed else "Burstable"
