"""Random objects of every kind that a tenant may write: valid and half-valid, most about names of other tenants."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ambit.objects.crds import read_bundle
from ambit.objects.decoding import PROJECTIONS

Object = dict[str, Any]

_BUNDLES = ("gateway-standard", "gateway-experimental", "istio")
_EXPRESSIONS = (".*", "\\Q", "(?i)A", "a{1,900}", "[", "(a|b)+c", "^/x(?P<n>.)$", "\\p{Greek}")
_TEXTS = (
    "",
    "x",
    "-",
    "a" * 300,
    "/",
    "/x",
    "%20",
    "é",
    "ROUTE %REQ(x)%",
    "{{}}",
    "\\1",
    "request.headers['x']",
)
_NUMBERS = (0, 1, -1, 80, 8080, 443, 15008, 15021, 65535, 65536, 2**31 - 1)


class Names:
    """What the objects are about: a victim's namespace and addresses beside the attacker's own."""

    def __init__(self, own: str, others: str, addresses: Sequence[str]) -> None:
        self.own = own
        self.others = others
        hosts = [
            f"web.{others}.svc.cluster.local",
            f"web.{own}.svc.cluster.local",
            f"*.{others}.svc.cluster.local",
        ]
        self._by_field: Mapping[str, Sequence[str]] = {
            "name": ("web", "client", "waypoint", "o0", "o1", "mesh", "x-header", "istio-waypoint"),
            "namespace": (others, own, "ambit-system", "istio-system"),
            "kind": ("Service", "Gateway", "ServiceEntry", "ListenerSet", "Secret", "ConfigMap", "HTTPRoute"),
            "group": ("", "gateway.networking.k8s.io", "networking.istio.io", "core"),
            "host": (*hosts, "*", "example.com", "web", others),
            "address": (
                *addresses,
                "240.240.0.1",
                "127.0.0.1",
                "169.254.7.127",
                "0.0.0.0/0",
                "::/0",
                "10.96.0.1",
            ),
            "class": ("istio-waypoint", "ambit-waypoint", "ambit-inline", "nobody"),
            "uri": (
                "http://169.254.169.254/x",
                f"http://web.{others}/",
                "https://kubernetes.default/api",
                "x://",
            ),
            "labels": ("web", "client", others, "ambient"),
        }

    def pick(self, chance: random.Random, field: str) -> str:
        """A text for a field with this name."""
        lower = field.lower()
        for part, kind in (
            ("namespace", "namespace"),
            ("gatewayclassname", "class"),
            ("uri", "uri"),
            ("issuer", "uri"),
            ("host", "host"),
            ("sni", "host"),
            ("address", "address"),
            ("cidr", "address"),
            ("ipblocks", "address"),
            ("kind", "kind"),
            ("group", "group"),
            ("name", "name"),
            ("principal", "namespace"),
        ):
            if part in lower:
                return chance.choice(self._by_field[kind])
        if "regex" in lower or "expression" in lower or "value" in lower:
            return chance.choice((*_EXPRESSIONS, *_TEXTS))
        return chance.choice((*_TEXTS, *self._by_field["host"]))

    def labels(self, chance: random.Random) -> dict[str, str]:
        """Of an object: also those that bind it to the victim's waypoint."""
        ours = {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": self.others}
        return chance.choice(({}, ours, {"app": "web"}, {"istio.io/use-waypoint": "none", "app": "client"}))


def kinds() -> list[tuple[str, str, Mapping[str, Any]]]:
    """Version, kind and schema of each custom kind in a namespace that the control plane reads."""
    found: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
    for bundle in _BUNDLES:
        for each in read_bundle(bundle):
            spec = each.get("spec", {})
            if each["kind"] != "CustomResourceDefinition" or each["metadata"]["name"] not in PROJECTIONS:
                continue
            if spec["scope"] == "Namespaced":
                served = next(version for version in spec["versions"] if version["served"])
                schema = served["schema"]["openAPIV3Schema"]["properties"]["spec"]
                name = f"{spec['group']}/{served['name']}"
                found.setdefault(each["metadata"]["name"], (name, spec["names"]["kind"], schema))
    return list(found.values())


def objects(chance: random.Random, names: Names) -> Iterator[Object]:
    """Endless. Each has one of a few names, so that later ones replace earlier ones."""
    known = kinds()
    while True:
        name = f"o{chance.randrange(4)}"
        metadata = {"name": name, "namespace": names.own, "labels": names.labels(chance)}
        if chance.random() < 0.25:
            yield {"metadata": metadata, **_builtin(chance, names)}
            continue
        version, kind, schema = chance.choice(known)
        spec = _value(schema, "spec", chance, names, 0)
        if isinstance(spec, dict) and "parentRefs" in schema["properties"]:
            spec["parentRefs"] = [_parent(chance, names) for _ in range(chance.randint(1, 3))]
        if kind == "Gateway":
            metadata["name"] = "o0"  # each may be a proxy of its own
        yield {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _parent(chance: random.Random, names: Names) -> Object:
    kind, name = chance.choice(
        (("Service", "web"), ("Service", "o0"), ("Gateway", "waypoint"), ("Gateway", "o0"))
    )
    parent: Object = {
        "kind": kind,
        "name": name,
        "group": "" if kind == "Service" else "gateway.networking.k8s.io",
    }
    if chance.random() < 0.7:
        parent["namespace"] = names.others
    if chance.random() < 0.5:
        parent["port"] = 80
    return parent


def _builtin(chance: random.Random, names: Names) -> Object:
    address = names.pick(chance, "address").partition("/")[0]
    port = {"port": chance.choice((80, 8080, 15008)), "name": chance.choice(("http", "grpc", "tcp"))}
    match chance.randrange(5):
        case 0:
            spec: Object = {"selector": {"app": "web"}, "ports": [port], "externalIPs": [address]}
            spec |= chance.choice(
                ({}, {"type": "LoadBalancer", "loadBalancerIP": address}, {"clusterIP": "None"})
            )
            return {"apiVersion": "v1", "kind": "Service", "spec": spec}
        case 1:
            spec = {"type": "ExternalName", "externalName": names.pick(chance, "host")}
            return {"apiVersion": "v1", "kind": "Service", "spec": spec}
        case 2:
            certificate = {"tls.crt": "LS0tLS1CRUdJTg==", "tls.key": chance.choice(("", "eA=="))}
            return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": certificate}
        case 3:
            contents = {"ca.crt": "-----BEGIN CERTIFICATE-----\nx", "mesh.yaml": "{"}
            return {"apiVersion": "v1", "kind": "ConfigMap", "data": contents}
        case _:
            return {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv6" if ":" in address else "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [port],
            }


def _value(schema: Mapping[str, Any], field: str, chance: random.Random, names: Names, depth: int) -> Any:
    if chance.random() < 0.005:
        return chance.choice((None, "", 7, [], {}))
    if schema.get("x-kubernetes-int-or-string"):
        return chance.choice((80, "http", "50%"))
    match schema.get("type"):
        case "object":
            return _object(schema, chance, names, depth)
        case "array":
            least, most = schema.get("minItems", 0), min(schema.get("maxItems", 3), 3)
            return [
                _value(schema["items"], field, chance, names, depth + 1)
                for _ in range(chance.randint(least, max(least, most)))
            ]
        case "boolean":
            return chance.random() < 0.5
        case "integer" | "number":
            least, most = schema.get("minimum", -1), schema.get("maximum", 2**31 - 1)
            fitting = [number for number in _NUMBERS if least <= number <= most]
            return chance.choice(fitting or [least])
        case "string":
            return _text(schema, field, chance, names)
        case _:
            return {}


def _object(schema: Mapping[str, Any], chance: random.Random, names: Names, depth: int) -> Object:
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    alternatives = [each["required"] for each in schema.get("oneOf", ()) if "required" in each]
    chosen = set(required) | set(chance.choice(alternatives) if alternatives else ())
    exclusive = {name for names_ in alternatives for name in names_} - chosen
    share = 0.45 if depth < 4 else 0.15
    chosen |= {name for name in properties if name not in exclusive and chance.random() < share}
    made = {
        name: _value(properties[name], name, chance, names, depth + 1)
        for name in sorted(chosen & properties.keys())
    }
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping) and chance.random() < 0.5:
        made[chance.choice(("app", "x", "istio.io/use-waypoint"))] = _value(
            extra, "labels", chance, names, depth + 1
        )
    return made


def _text(schema: Mapping[str, Any], field: str, chance: random.Random, names: Names) -> str:
    if "enum" in schema and chance.random() < 0.98:
        return str(chance.choice(schema["enum"]))
    if schema.get("format") == "duration" or "duration" in str(schema.get("pattern", "")).lower():
        return chance.choice(("1s", "0s", "100ms", "1h"))
    candidates = [names.pick(chance, field) for _ in range(12)] + [
        "1s",
        "x",
        "http",
        "example.com",
        "/x",
        "GET",
    ]
    pattern = schema.get("pattern")
    if pattern is not None and chance.random() < 0.95:
        candidates = [text for text in candidates if re.search(pattern, text)] or candidates
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10_000)
    return chance.choice([text for text in candidates if least <= len(text) <= most] or candidates)
