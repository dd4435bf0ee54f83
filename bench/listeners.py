"""What a change costs the compiler at a gateway to which ListenerSets add a thousand HTTPS listeners.

    python -m bench.listeners [--listeners 1000]

Sixty-four listeners in each set, the sets in eight namespaces; one certificate (RSA, 2,048 bits) of a wildcard is named
by all of them. Prints one JSON object: seconds from cold, milliseconds (median) for one set and for the Secret.
"""

import argparse
import base64
import datetime as dt
import json
import statistics
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ambit.ingest.gateway.shares import MOST
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from bench.compile import change
from bench.compiler import script
from bench.harness import Number, Options

GROUP = "gateway.networking.k8s.io"
COUNT, PER_SET, NAMESPACES, CHANGES = 1000, 64, 8, 20


def made(resource: str, namespace: str, name: str, **body: Any) -> Change:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return change((resource, f"{namespace}/{name}", json.dumps({"metadata": metadata, **body}).encode()))


def certificate() -> Change:
    """Another one at each call."""
    key = rsa.generate_private_key(65537, 2048)
    now, name = dt.datetime.now(dt.UTC), x509.Name([])
    hosts = x509.SubjectAlternativeName([x509.DNSName("*.example.com")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.add_extension(hosts, critical=True)
    signed = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(1)).sign(key, hashes.SHA256())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    data = {"tls.crt": signed.public_bytes(form[0]), "tls.key": key.private_bytes(*form)}
    text = {field: base64.b64encode(each).decode() for field, each in data.items()}
    return made("secrets", "edge", "wildcard", type="kubernetes.io/tls", data=text)


def around() -> list[Change]:
    """A Gateway that lets all namespaces in, and who may name its certificate."""
    http = {"name": "http", "port": 80, "protocol": "HTTP"}
    spec = {
        "gatewayClassName": "ambit",
        "listeners": [http],
        "allowedListeners": {"namespaces": {"from": "All"}},
    }
    whom = [{"group": GROUP, "kind": "ListenerSet", "namespace": f"n{each}"} for each in range(NAMESPACES)]
    grant = {"from": whom, "to": [{"group": "", "kind": "Secret"}]}
    return [
        made(f"gateways.{GROUP}", "edge", "front", spec=spec),
        made(f"referencegrants.{GROUP}", "edge", "all", spec=grant),
    ]


def listener_set(number: int, count: int, version: str = "") -> Change:
    first = number * PER_SET
    reference = {"name": "wildcard", "namespace": "edge"}
    listeners = [
        {
            "name": f"l{each}",
            "port": 443,
            "protocol": "HTTPS",
            "hostname": f"h{each}{version}.example.com",
            "tls": {"mode": "Terminate", "certificateRefs": [reference]},
        }
        for each in range(first, min(first + PER_SET, count))
    ]
    spec = {"parentRef": {"name": "front", "namespace": "edge"}, "listeners": listeners}
    return made(f"listenersets.{GROUP}", f"n{number % NAMESPACES}", f"s{number}", spec=spec)


def measured(count: int) -> dict[str, float]:
    """Raises SystemExit when a listener is not taken."""
    sets = [listener_set(number, count) for number in range(-(-count // PER_SET))]
    given = [*around(), certificate(), *sets]
    compiler = MeshCompiler(MeshSettings())
    started = time.perf_counter()
    compiler.apply(given)
    found = {"cold_s": round(time.perf_counter() - started, 3)}
    taken = len(compiler.proxies["edge/front"].listeners)
    if taken != 1 + count:
        raise SystemExit(f"{taken} listeners are taken")
    changes = {
        "one_set_ms": [listener_set(0, count, f"-{each}") for each in range(CHANGES)],
        "secret_ms": [certificate() for _ in range(CHANGES)],
    }
    for name, each in changes.items():
        times = []
        for one in each:
            started = time.perf_counter()
            compiler.apply([one])
            times.append((time.perf_counter() - started) * 1000)
        found[name] = round(statistics.median(times), 2)
    return found


async def measure(options: Options) -> list[Number]:
    """For context: no targets."""
    count = COUNT // 10 if options.quick else COUNT
    found = await script("bench.listeners", "--listeners", str(count))
    return [
        Number(f"{count:,} HTTPS listeners of ListenerSets, compiled from cold", found["cold_s"], "s"),
        Number("… one set changed, median", found["one_set_ms"], "ms"),
        Number("… their Secret changed, median", found["secret_ms"], "ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=COUNT, help=f"at most {MOST * NAMESPACES}")
    print(json.dumps(measured(parser.parse_args().listeners), indent=1))


if __name__ == "__main__":
    main()
