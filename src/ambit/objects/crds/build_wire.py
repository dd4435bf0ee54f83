"""Reads field numbers of Kubernetes' protobuf encoding from its Go types. Used by `build`.

The encoding follows the Go structs, and `inline` members and pointers (whose zero values are kept) are only
visible there. The result maps definition names to `[number, JSON name or "" when inlined, type, is pointer]`.
Types: s b i d y (string, bool, integer, double, bytes), T M Q I R F (Time, MicroTime, Quantity, IntOrString,
RawExtension, FieldsV1), W (wrapped list of strings), a definition name; prefixed with `[` or `{` for lists and maps.
"""

import re
from pathlib import Path

Wire = dict[str, list[list[str | int | bool]]]

_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_ALIAS = re.compile(r"^type (\w+) (\S.*)$", re.MULTILINE)
_FIELD = re.compile(r'^\s*(?:(\w+)\s+)?(\S+)\s+`json:"([^"]*)"[^`]*protobuf:"[^,]*,(\d+),', re.MULTILINE)
_SCALARS = {"string": "s", "bool": "b", "float64": "d", "[]byte": "y"}
_SPECIAL = {
    "metav1.Time": "T",
    "metav1.MicroTime": "M",
    "resource.Quantity": "Q",
    "intstr.IntOrString": "I",
    "runtime.RawExtension": "R",
    "FieldsV1": "F",
    "Time": "T",
    "MicroTime": "M",
}
_PACKAGES = {
    "metav1": "io.k8s.apimachinery.pkg.apis.meta.v1",
    "v1": "io.k8s.api.core.v1",
    "corev1": "io.k8s.api.core.v1",
    "apiv1": "io.k8s.api.core.v1",
    "api": "io.k8s.api.core.v1",
}


class _Package:
    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        aliases = [(match[1], match[2].strip()) for match in _ALIAS.finditer(text)]
        self.aliases = {key: value for key, value in aliases if not value.startswith(("struct", "interface"))}
        self.wrapped = {key for key, value in self.aliases.items() if value == "[]string"}


def read_wire(directories: dict[str, Path]) -> Wire:
    """Definition prefix -> Go package directory."""
    packages = {
        name: _Package(name, (directory / "types.go").read_text()) for name, directory in directories.items()
    }
    wire: Wire = {}
    for package in packages.values():
        for struct in _STRUCT.finditer(package.text):
            fields = [
                [int(number), "" if ",inline" in json else json.split(",")[0], kind, kind_is_pointer]
                for name, go_type, json, number in _FIELD.findall(struct[2])
                if not json.startswith("-")
                for kind, kind_is_pointer in [_type(go_type, package, packages)]
            ]
            wire[f"{package.name}.{struct[1]}"] = fields
    return wire


def _type(go_type: str, package: _Package, packages: dict[str, _Package]) -> tuple[str, bool]:
    if go_type.startswith("*"):
        return _type(go_type[1:], package, packages)[0], True
    if go_type in _SPECIAL:
        return _SPECIAL[go_type], False
    if go_type in _SCALARS:
        return _SCALARS[go_type], False
    if re.fullmatch(r"u?int(8|16|32|64)?", go_type):
        return "i", False
    if go_type.startswith("[]"):
        return "[" + _type(go_type[2:], package, packages)[0], False
    if go_type.startswith("map["):
        return "{" + _type(go_type[go_type.index("]") + 1 :], package, packages)[0], False
    if "." in go_type:
        prefix, go_type = go_type.split(".", 1)
        if prefix == "types":
            return "s", False
        package = packages[_PACKAGES[prefix]]
    if go_type in package.wrapped:
        return "W", False
    if go_type in package.aliases:
        return _type(package.aliases[go_type], package, packages)
    return f"{package.name}.{go_type}", False
