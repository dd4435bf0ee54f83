"""Converts upstream API definitions into the files of this package. Run by hand when a version moves.

Arguments: the unpacked Go modules `sigs.k8s.io/gateway-api`, the file customresourcedefinitions.gen.yaml of
`istio.io/api`, then the modules `k8s.io/kubernetes`, `k8s.io/api`, `k8s.io/apimachinery`.
"""

import gzip
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ambit.objects.crds.build_wire import read_wire

_HERE = Path(__file__).parent
_GROUPS = (
    *(
        f"io.k8s.api.{name}."
        for name in [
            "core.v1",
            "apps.v1",
            "batch.v1",
            "discovery.v1",
            "rbac.v1",
            "coordination.v1",
            "admissionregistration.v1",
            "authentication.v1",
            "authorization.v1",
            "networking.v1",
            "policy.v1",
            "events.v1",
            "autoscaling.v1",
            "autoscaling.v2",
            "storage.v1",
            "scheduling.v1",
        ]
    ),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.apimachinery.",
)


def _objects(texts: list[str]) -> list[dict[str, Any]]:
    return [body for text in texts for body in yaml.load_all(text, yaml.CSafeLoader) if body]


def _schema(value: Any, *, descriptions: bool) -> Any:
    """Definitions reference each other by bare name; objects without declared fields hold anything."""
    if isinstance(value, list):
        return [_schema(item, descriptions=descriptions) for item in value]
    if not isinstance(value, dict):
        return value
    out = {
        key: _schema(item, descriptions=descriptions)
        for key, item in value.items()
        if descriptions or key != "description" or not isinstance(item, str)
    }
    if isinstance(out.get("$ref"), str):
        out["$ref"] = out["$ref"].removeprefix("#/definitions/")
    if out.get("format") == "int-or-string":
        out = {"x-kubernetes-int-or-string": True, **_described(out)}
    fields = {"properties", "additionalProperties"}
    if out.get("type") == "object" and not fields & out.keys():
        out["x-kubernetes-preserve-unknown-fields"] = True
    return out


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key == "description"}


def _definitions(directory: Path, *, descriptions: bool) -> dict[str, Any]:
    swagger = msgspec.json.decode((directory / "api/openapi-spec/swagger.json").read_bytes())
    chosen = {}
    for name, schema in swagger["definitions"].items():
        if not name.startswith(_GROUPS):
            continue
        schema = _schema(schema, descriptions=descriptions)
        if name.endswith((".resource.Quantity",)):
            schema = {"x-kubernetes-quantity": True, "type": "string", **_described(schema)}
        if "type" not in schema and "x-kubernetes-int-or-string" not in schema:
            schema["x-kubernetes-preserve-unknown-fields"] = True
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if len(kinds) > 1:
            del schema["x-kubernetes-group-version-kind"]
        chosen[name] = schema
    return chosen


def _write(name: str, value: Any) -> None:
    data = msgspec.json.encode(value, order="deterministic")
    (_HERE / f"{name}.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def _packages(api: Path, machinery: Path) -> dict[str, Path]:
    names = [group.removeprefix("io.k8s.api.").strip(".").split(".") for group in _GROUPS[:-2]]
    found = {f"io.k8s.api.{group}.{version}": api / group / version for group, version in names}
    return {**found, "io.k8s.apimachinery.pkg.apis.meta.v1": machinery / "pkg/apis/meta/v1"}


def main(gateway: Path, istio: Path, kubernetes: Path, api: Path, machinery: Path) -> None:
    for channel in ("standard", "experimental"):
        files = sorted((gateway / "config/crd" / channel).glob("gateway.networking*.yaml"))
        _write(f"gateway-{channel}", _objects([path.read_text() for path in files]))
    _write("istio", _objects([istio.read_text()]))
    _write("kubernetes", _definitions(kubernetes, descriptions=False))
    _write("kubernetes-wire", read_wire(_packages(api, machinery)))
    _write("kubernetes-openapi", _definitions(kubernetes, descriptions=True))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:6]))
