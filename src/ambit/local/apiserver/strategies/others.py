"""Namespaces, Secrets, Endpoints and slices, RBAC, webhooks, CRDs, nodes: small rules."""

import base64
import binascii
import ipaddress
import re

from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.kinds.definitions import complete, rule_problems, schema_causes
from ambit.local.apiserver.metadata import invalid_value, is_label, required, unsupported
from ambit.local.apiserver.pod_security import wrong_labels
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.strategies.base import Cluster, Strategy, immutable, setdefaults

_KEY = re.compile(r"[-._a-zA-Z0-9]+")


class Namespaces(Strategy):
    def default(self, body: Json) -> None:
        metadata = body["metadata"]
        if metadata.get("name"):
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]

    def create(self, cluster: Cluster, body: Json) -> None:
        body["spec"] = {"finalizers": ["kubernetes"]}
        body["status"] = {"phase": "Active"}

    def update(self, cluster: Cluster, body: Json, old: Json) -> None:
        body["spec"] = {**(body.get("spec") or {}), "finalizers": old.get("spec", {}).get("finalizers", [])}

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        known = [] if old is None else list(wrong_labels(old["metadata"].get("labels") or {}))
        return [
            invalid_value(f"metadata.labels[{label}]", value, rule)
            for label, value, rule in wrong_labels(body["metadata"].get("labels") or {})
            if (label, value, rule) not in known
        ]


class Nodes(Strategy):
    def default(self, body: Json) -> None:
        body.setdefault("spec", {})

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        return []


def _validate_keys(body: Json, fields: tuple[str, ...]) -> list[Cause]:
    rule = (
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
        "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    )
    return [
        invalid_value(f"{field}[{key}]", key, rule)
        for field in fields
        for key in body.get(field) or {}
        if not _KEY.fullmatch(key)
    ]


class ConfigMaps(Strategy):
    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        causes = _validate_keys(body, ("data", "binaryData"))
        if old is not None and old.get("immutable"):
            causes += immutable("data", body.get("data"), old.get("data"))
        return causes


class Secrets(Strategy):
    def default(self, body: Json) -> None:
        setdefaults(body, {"type": "Opaque"})
        plain = body.pop("stringData", None)
        for key, value in (plain or {}).items():
            body.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        causes = _validate_keys(body, ("data",))
        for key, value in (body.get("data") or {}).items():
            try:
                base64.b64decode(value or "", validate=True)
            except (binascii.Error, ValueError):
                causes.append(invalid_value(f"data[{key}]", "<hidden>", "illegal base64 data"))
        needed = {"kubernetes.io/tls": ("tls.crt", "tls.key")}.get(body["type"], ())
        causes += [required(f"data[{key}]") for key in needed if key not in (body.get("data") or {})]
        if old is not None:
            causes += immutable("type", body["type"], old.get("type"))
        return causes


class EndpointSlices(Strategy):
    def default(self, body: Json) -> None:
        for port in body.get("ports") or ():
            setdefaults(port, {"name": "", "protocol": "TCP"})

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        families = ("FQDN", "IPv4", "IPv6")
        causes = []
        if body.get("addressType") not in families:
            causes.append(unsupported("addressType", body.get("addressType", ""), families))
        if old is not None:
            causes += immutable("addressType", body.get("addressType"), old.get("addressType"))
        for index, endpoint in enumerate(body.get("endpoints") or ()):
            where = f"endpoints[{index}]"
            if not endpoint.get("addresses"):
                causes.append(required(f"{where}.addresses", "must contain at least 1 address"))
            for position, text in enumerate(endpoint.get("addresses") or ()):
                if rule := _wrong_address(text, body.get("addressType")):
                    causes.append(invalid_value(f"{where}.addresses[{position}]", text, rule))
            hostname = endpoint.get("hostname")
            if hostname and not is_label(hostname):
                causes.append(
                    invalid_value(f"{where}.hostname", hostname, "a lowercase RFC 1123 label is required")
                )
        for index, port in enumerate(body.get("ports") or ()):
            number = port.get("port")
            if number is not None and not 1 <= number <= 65535:
                causes.append(
                    invalid_value(f"ports[{index}].port", number, "must be between 1 and 65535, inclusive")
                )
            protocols = ("SCTP", "TCP", "UDP")
            if port.get("protocol") not in protocols:
                causes.append(unsupported(f"ports[{index}].protocol", port.get("protocol"), protocols))
        return causes


def _wrong_address(text: str, family: str | None) -> str:
    """Why an endpoint cannot have this address (discovery/v1 validation, `ValidateEndpointIP`); empty when it can."""
    if family not in ("IPv4", "IPv6"):
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"must be a valid {family} address"
    if family != f"IPv{address.version}" or "%" in text or getattr(address, "ipv4_mapped", None):
        return f"must be a valid {family} address"
    if address.is_unspecified:
        return "may not be unspecified (0.0.0.0 or ::)"
    if address.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if address.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    if address.is_multicast:
        return "may not be in the multicast range (224.0.0.0/4, ff00::/8)"
    return ""


class Bindings(Strategy):
    """RoleBinding and ClusterRoleBinding."""

    def default(self, body: Json) -> None:
        role = body.get("roleRef")
        if isinstance(role, dict):
            setdefaults(role, {"apiGroup": "rbac.authorization.k8s.io"})
        for subject in body.get("subjects") or ():
            group = "" if subject.get("kind") == "ServiceAccount" else "rbac.authorization.k8s.io"
            if group:
                setdefaults(subject, {"apiGroup": group})

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        role = body.get("roleRef") or {}
        causes = []
        if not role.get("name"):
            causes.append(required("roleRef.name"))
        kinds = ("ClusterRole", "Role")
        if role.get("kind") not in kinds:
            causes.append(unsupported("roleRef.kind", role.get("kind", ""), kinds))
        for index, subject in enumerate(body.get("subjects") or ()):
            if not subject.get("name"):
                causes.append(required(f"subjects[{index}].name"))
            if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
                causes.append(required(f"subjects[{index}].namespace"))
        if old is not None and role != old.get("roleRef"):
            message = "Invalid value: cannot change roleRef"
            causes.append(Cause("FieldValueInvalid", message, "roleRef"))
        return causes


class Roles(Strategy):
    def default(self, body: Json) -> None:
        if body.get("rules") is None:
            body["rules"] = []

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        causes = []
        for index, rule in enumerate(body["rules"]):
            if not rule.get("verbs"):
                causes.append(required(f"rules[{index}].verbs", "verbs must contain at least one value"))
            if not rule.get("nonResourceURLs") and not rule.get("resources"):
                rule_text = "resource rules must supply at least one resource"
                causes.append(required(f"rules[{index}].resources", rule_text))
        return causes


class Webhooks(Strategy):
    def __init__(self, *, mutating: bool) -> None:
        self._mutating = mutating

    def default(self, body: Json) -> None:
        for hook in body.get("webhooks") or ():
            setdefaults(
                hook,
                {
                    "failurePolicy": "Fail",
                    "matchPolicy": "Equivalent",
                    "namespaceSelector": {},
                    "objectSelector": {},
                    "timeoutSeconds": 10,
                },
            )
            if self._mutating:
                setdefaults(hook, {"reinvocationPolicy": "Never"})
            for rule in hook.get("rules") or ():
                setdefaults(rule, {"scope": "*"})
            service = (hook.get("clientConfig") or {}).get("service")
            if service:
                setdefaults(service, {"port": 443})


class NetworkPolicies(Strategy):
    def default(self, body: Json) -> None:
        spec = body.setdefault("spec", {})
        setdefaults(spec, {"podSelector": {}})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
            for port in rule.get("ports") or ():
                setdefaults(port, {"protocol": "TCP"})

    def warnings(self, body: Json) -> list[str]:
        name = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        return [
            (
                f"NetworkPolicy {name} is stored and not enforced: the laptop cluster has no network plugin. "
                "Write an AuthorizationPolicy for pods in the mesh"
            )
        ]


class Definitions(Strategy):
    """CustomResourceDefinitions."""

    def create(self, cluster: Cluster, body: Json) -> None:
        body.pop("status", None)
        if not self.validate(body, None):
            complete(body, cluster.registry, rule_problems(body))

    def update(self, cluster: Cluster, body: Json, old: Json) -> None:
        if not self.validate(body, old):
            complete(body, cluster.registry, rule_problems(body))

    def warnings(self, body: Json) -> list[str]:
        return rule_problems(body)

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        spec = body.get("spec") or {}
        names = spec.get("names") or {}
        causes = [
            required(f"spec.{field}") for field in ("group", "scope", "versions") if not spec.get(field)
        ]
        causes += [required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
        if causes:
            return causes
        name, wanted = body["metadata"].get("name"), f"{names['plural']}.{spec['group']}"
        if name != wanted:
            causes.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
        scopes = ("Cluster", "Namespaced")
        if spec["scope"] not in scopes:
            causes.append(unsupported("spec.scope", spec["scope"], scopes))
        if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
            rule = "must have exactly one version marked as storage version"
            causes.append(invalid_value("spec.versions", "", rule))
        for index, version in enumerate(spec["versions"]):
            if not (version.get("schema") or {}).get("openAPIV3Schema"):
                causes.append(
                    required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
                )
            else:
                path = f"spec.versions[{index}].schema.openAPIV3Schema"
                causes += schema_causes(version["schema"]["openAPIV3Schema"], path)
        strategy = (spec.get("conversion") or {}).get("strategy", "None")
        if strategy != "None":
            causes.append(unsupported("spec.conversion.strategy", strategy, ("None",)))
        if old is not None:
            causes += immutable("spec.scope", spec["scope"], old["spec"]["scope"])
        return causes
