"""The suite and the servers that it asks for, built from their released modules under the names of their images.

`programs/go.mod` pins the versions. echo-advanced is Istio's test server with its client beside it, echo-basic a
package of the suite, and coredns the test cluster's own.
"""

import datetime as dt
import json
import re
import subprocess
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import programs
from tests.kubernetes.cluster.images import pack_files
from tests.kubernetes.cluster.programs import Program
from tests.kubernetes.cluster.settings import cache

SOURCE = Path(__file__).parent / "programs"
SUITE = "conformance.test"
BASIC, SERVER, CLIENT = "echo-basic", "echo-server", "echo-client"
PACKAGES = {
    SUITE: ".",
    BASIC: "sigs.k8s.io/gateway-api/conformance/echo-basic",
    SERVER: "istio.io/istio/pkg/test/echo/cmd/server",
    CLIENT: "istio.io/istio/pkg/test/echo/cmd/client",
}
MODULE = "sigs.k8s.io/gateway-api/conformance"
COREDNS = "coredns"
CERTIFICATE, KEY = "cert.crt", "cert.key"
"""Where echo-advanced has its own, as the arguments in the suite's manifests say."""
VALID = dt.timedelta(days=3650)
_IMAGE = re.compile(r"^\s*image: (\S+)$", re.MULTILINE)


class Servers(msgspec.Struct, frozen=True):
    """The programs in `folder`, a certificate in `keys`, and which images the suite's manifests want: by the last word
    of their names."""

    folder: Path
    keys: Path
    images: dict[str, tuple[str, ...]]

    @property
    def suite(self) -> Path:
        """The suite's program."""
        return self.folder / SUITE

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the servers are made of."""
        servers = (BASIC, SERVER, CLIENT, COREDNS)
        return (*(self.folder / name for name in servers), self.keys / CERTIFICATE, self.keys / KEY)


def build() -> Servers:
    """Builds what is not in the cache yet. Raises AmbitError without Go or the Go module proxy."""
    modules = [(Program(name, package), SOURCE) for name, package in PACKAGES.items()]
    coredns = next(each for each in programs.programs() if each.name == COREDNS)
    folder = programs.build_all([*modules, (coredns, programs.SOURCES / COREDNS)])
    keys = cache() / "conformance-images"
    keys.mkdir(parents=True, exist_ok=True)
    _make_certificate(keys)
    texts = [path.read_text() for path in sorted(_module().rglob("*.yaml"))]
    return Servers(folder, keys, images_in(texts))


def pack(servers: Servers) -> list[Path]:
    """Image archives of all servers, under every name that the manifests use."""
    bin_folder = servers.folder
    advanced = {
        "/usr/local/bin/server": bin_folder / SERVER,
        "/usr/local/bin/client": bin_folder / CLIENT,
        f"/{CERTIFICATE}": servers.keys / CERTIFICATE,
        f"/{KEY}": servers.keys / KEY,
    }
    contents: dict[str, tuple[dict[str, Path], str]] = {
        "echo-basic": ({"/echo-basic": bin_folder / BASIC}, "/echo-basic"),
        "echo-advanced": (advanced, "/usr/local/bin/server"),
        "coredns": ({"/coredns": bin_folder / COREDNS}, "/coredns"),
    }
    unknown = sorted(set(servers.images) - set(contents))
    if unknown:
        raise AmbitError(
            f"the suite's manifests name images that nothing here stands for: {', '.join(unknown)}"
        )
    return [
        pack_files(servers.keys / f"{name}.tar", names, *contents[name])
        for name, names in servers.images.items()
    ]


def images_in(manifests: list[str]) -> dict[str, tuple[str, ...]]:
    """The images that manifests name, by the last word before the tag."""
    names = sorted({name for text in manifests for name in _IMAGE.findall(text)})
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        short = name.rpartition("/")[2].partition(":")[0]
        found[short] = (*found.get(short, ()), name)
    return found


def version() -> str:
    """The suite's version, with `v`."""
    found = re.search(rf"{re.escape(MODULE)} (v\S+)", (SOURCE / "go.mod").read_text())
    assert found is not None
    return found[1]


def _module() -> Path:
    """Where Go keeps the suite's files, manifests among them. Raises AmbitError."""
    words = ["go", "list", "-m", "-json", MODULE]
    done = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True)
    if done.returncode:
        raise AmbitError(f"the suite's module is not there: {done.stderr.strip()}")
    return Path(json.loads(done.stdout)["Dir"])


def _make_certificate(folder: Path) -> None:
    """A server of the suite wants one to start with; nobody checks it."""
    if (folder / CERTIFICATE).exists() and (folder / KEY).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "echo")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("echo")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / KEY).write_bytes(secret)
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
