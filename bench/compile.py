"""How long the compiler takes: everything from cold, then one change at a time, and what it keeps in memory.

    python -m bench.compile [--pods 100000]

Prints one JSON object. Times are seconds (cold) and milliseconds (one change: median, 99th percentile, largest).
"""

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.objects.decoding import PROJECTIONS

PODS_PER_SERVICE = 20
SERVICES_PER_NAMESPACE = 50
NODES = 1000
PEER = "peerauthentications.security.istio.io"
POLICY = "authorizationpolicies.security.istio.io"


def pod(number: int, ready: bool = True) -> tuple[str, str, bytes]:
    service = number // PODS_PER_SERVICE
    namespace = f"ns-{service // SERVICES_PER_NAMESPACE}"
    name = f"app-{service}-6d5f8c7b9-{number:05x}"
    body = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{number:032x}",
            "labels": {"app": f"app-{service}", "version": "v1", "pod-template-hash": "6d5f8c7b9"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
            "ownerReferences": [
                {"kind": "ReplicaSet", "name": f"app-{service}-6d5f8c7b9", "controller": True}
            ],
        },
        "spec": {
            "nodeName": f"node-{number % NODES}",
            "serviceAccountName": f"app-{service}",
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    return "pods", f"{namespace}/{name}", json.dumps(body).encode()


def objects(pods: int) -> Iterator[tuple[str, str, bytes]]:
    for number in range(NODES):
        labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": f"z{number % 3}"}
        body = {"metadata": {"name": f"node-{number}", "labels": labels}}
        yield "nodes", f"node-{number}", json.dumps(body).encode()
    services = -(-pods // PODS_PER_SERVICE)
    for number in range(services):
        yield service(number)
    for number in range(-(-services // SERVICES_PER_NAMESPACE)):
        yield policy(number, "80")
        body = {
            "metadata": {"name": "default", "namespace": f"ns-{number}"},
            "spec": {"mtls": {"mode": "STRICT"}},
        }
        yield PEER, f"ns-{number}/default", json.dumps(body).encode()
    for number in range(pods):
        yield pod(number)


def service(number: int, port: int = 80) -> tuple[str, str, bytes]:
    namespace, name = f"ns-{number // SERVICES_PER_NAMESPACE}", f"app-{number}"
    body = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": name},
            "clusterIP": f"10.200.{number >> 8 & 255}.{number & 255}",
            "ports": [{"name": "http", "port": port, "targetPort": "http"}],
        },
    }
    return "services", f"{namespace}/{name}", json.dumps(body).encode()


def policy(number: int, port: str) -> tuple[str, str, bytes]:
    namespace = f"ns-{number}"
    first = number * SERVICES_PER_NAMESPACE
    body = {
        "metadata": {"name": "allow", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": f"app-{first}"}},
            "rules": [{"to": [{"operation": {"ports": [port]}}]}],
        },
    }
    return POLICY, f"{namespace}/allow", json.dumps(body).encode()


def change(given: tuple[str, str, bytes]) -> Change:
    resource_name, key, data = given
    return Change(resource_name, key, PROJECTIONS[resource_name].decode(data))


def measured(compiler: MeshCompiler, changes: list[Change], moved: Callable[[int], bool]) -> dict[str, float]:
    times = []
    for each in changes:
        started = time.perf_counter()
        delta = compiler.apply([each])
        times.append((time.perf_counter() - started) * 1000)
        if not moved(len(delta.workloads.upserts)):
            raise SystemExit(f"{each.key} moved {len(delta.workloads.upserts)} workloads")
    times.sort()
    return {
        "median_ms": round(statistics.median(times), 3),
        "p99_ms": round(times[int(len(times) * 0.99)], 3),
        "max_ms": round(times[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=100_000)
    pods = parser.parse_args().pods
    gc.disable()  # as a server does while it loads; the collector would look at every object again and again
    given = list(objects(pods))
    started = time.perf_counter()
    changes = [change(each) for each in given]
    decoded = time.perf_counter()
    del given
    compiler = MeshCompiler(MeshSettings(), time.perf_counter)
    compiler.apply(changes)
    compiled = time.perf_counter()
    del changes
    gc.freeze()
    gc.enable()
    step = max(pods // 2000, 1)
    result = {
        "pods": pods,
        "decode_s": round(decoded - started, 2),
        "compile_s": round(compiled - decoded, 2),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "one pod": measured(
            compiler, [change(pod(n, ready=False)) for n in range(0, pods, step)], lambda moved: moved == 1
        ),
        "one policy": measured(
            compiler,
            [change(policy(n, "81")) for n in range(min(100, len(compiler.authorizations) // 2))],
            lambda moved: moved == 0,
        ),
        "one service of 20 pods": measured(
            compiler,
            [change(service(n, port=81)) for n in range(min(200, pods // PODS_PER_SERVICE))],
            lambda moved: moved == PODS_PER_SERVICE,
        ),
        "collections": {
            each.name: {"size": each.size, "runs": each.recomputations, "seconds": round(each.seconds, 2)}
            for each in compiler.statistics()
            if each.recomputations
        },
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
