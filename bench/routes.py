"""How long many routes take: compiled and planned for their proxy from cold, then one route changed.

    python -m bench.routes [--routes 5000]

Prints one JSON object. Three shapes: ten routes on each of many services of one waypoint; all on one service of it; all
on one listener of a gateway, each for a host of its own. Times are seconds (cold) and milliseconds (one change: median
and 99th percentile).
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

from ambit.control.l7.plans import Plans
from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.plan.values import NodeSettings
from bench.compile import change
from bench.compiler import script
from bench.harness import Number, Options

Given = tuple[str, str, bytes]
GROUP = "gateway.networking.k8s.io"
ROUTES_PER_SERVICE = 10
CHANGES = 50
COUNT = 5000
SHAPES = {
    "services": "on 500 services of a waypoint",
    "one service": "on one service",
    "gateway": "on one listener of a gateway",
}


def made(resource: str, name: str, spec: dict[str, Any]) -> Given:
    labels = {"istio.io/use-waypoint": "waypoint"} if resource == "services" else {}
    created = "2026-01-01T00:00:00Z"
    metadata = {"name": name, "namespace": "shop", "labels": labels, "creationTimestamp": created}
    return resource, f"shop/{name}", json.dumps({"metadata": metadata, "spec": spec}).encode()


def around(services: int) -> Iterator[Given]:
    """Everything but routes."""
    hbone = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    http = {"name": "http", "port": 80, "protocol": "HTTP"}
    yield made(f"gateways.{GROUP}", "waypoint", {"gatewayClassName": "ambit-waypoint", "listeners": [hbone]})
    yield made(f"gateways.{GROUP}", "edge", {"gatewayClassName": "ambit", "listeners": [http]})
    for number in range(services):
        yield made(
            "services",
            f"app-{number}",
            {
                "selector": {"app": f"app-{number}"},
                "clusterIP": f"10.200.{number >> 8}.{number & 255}",
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        )


def route(shape: str, number: int, services: int, weight: int = 90) -> Given:
    app = f"app-{number // ROUTES_PER_SERVICE % services}"
    backends = [{"name": app, "port": 80, "weight": weight}, {"name": "app-1", "port": 80, "weight": 10}]
    match = {"path": {"type": "PathPrefix", "value": f"/p{number}"}, "headers": [{"name": "x", "value": "1"}]}
    parent: dict[str, Any] = {"group": "", "kind": "Service", "name": app if shape == "services" else "app-0"}
    spec: dict[str, Any] = {"rules": [{"matches": [match], "backendRefs": backends}]}
    if shape == "gateway":
        parent = {"name": "edge"}
        spec["hostnames"] = [f"host-{number}.example.com"]
    return made(f"httproutes.{GROUP}", f"route-{number}", {"parentRefs": [parent], **spec})


def measured(shape: str, count: int) -> dict[str, float]:
    services = max(count // ROUTES_PER_SERVICE, 2)
    given = [*around(services), *(route(shape, number, services) for number in range(count))]
    started = time.perf_counter()
    changes = [change(each) for each in given]
    decoded = time.perf_counter()
    compiler = MeshCompiler(MeshSettings())
    plans = Plans(NodeSettings(node=""), lambda: None)
    plans.take(compiler.apply(changes))
    compiled = time.perf_counter()
    proxy = plans.inputs.proxy("shop/edge" if shape == "gateway" else "shop/waypoint")
    assert proxy is not None
    plans.open(proxy)
    planned = time.perf_counter()
    found = {
        "decode_s": round(decoded - started, 2),
        "compile_s": round(compiled - decoded, 2),
        "plan_s": round(planned - compiled, 2),
    }
    del changes, given
    gc.freeze()
    gc.enable()
    times: dict[str, list[float]] = {"compile": [], "plan": []}
    for number in range(0, count, max(count // CHANGES, 1)):
        one = change(route(shape, number, services, weight=91))
        started = time.perf_counter()
        delta = compiler.apply([one])
        compiled = time.perf_counter()
        if len(plans.take(delta)) != 1:
            raise SystemExit(f"{one.key} changed nothing")
        times["compile"].append((compiled - started) * 1000)
        times["plan"].append((time.perf_counter() - compiled) * 1000)
    for name, values in times.items():
        found[f"one_{name}_ms"] = round(statistics.median(values), 2)
    both = sorted(map(sum, zip(*times.values(), strict=True)))
    found["one_p99_ms"] = round(both[int(len(both) * 0.99)], 2)
    return found


async def measure(options: Options) -> list[Number]:
    """Ten routes on each service have targets; all of them on one listener are context."""
    count = COUNT // 10 if options.quick else COUNT
    found = await script("bench.routes", "--routes", str(count))
    numbers = []
    for shape, words in SHAPES.items():
        is_usual = shape == "services"
        each = found[shape]
        cold = each["decode_s"] + each["compile_s"] + each["plan_s"]
        one = each["one_compile_ms"] + each["one_plan_ms"]
        numbers += [
            Number(f"{count:,} routes {words}, from cold", cold, "s", 3.0),
            Number("one of them changed, median", one, "ms", 10.0 if is_usual else None),
        ]
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routes", type=int, default=COUNT)
    parser.add_argument("--shape", choices=SHAPES)
    given = parser.parse_args()
    found = {}
    for shape in (given.shape,) if given.shape else SHAPES:
        gc.disable()  # as a server does while it loads
        found[shape] = measured(shape, given.routes)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
