"""Istio's ambient mesh on the cluster: its own programs, built once from its released module, and its own charts.

The module is pinned in `programs/istio/go.mod`. ztunnel is another project and in another language: the program that
$AMBIT_BENCH_ZTUNNEL names is used. Images have the names that the charts ask for, and only the programs in them.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

from tests.kubernetes.cluster import lifecycle, programs
from tests.kubernetes.cluster.images import pack_files
from tests.kubernetes.cluster.programs import Program
from tests.kubernetes.cluster.settings import Cluster, cache

from ambit.core.errors import AmbitError

SOURCE = Path(__file__).parent / "programs" / "istio"
NAMESPACE = "istio-system"
HUB, TAG = "localhost", "1"
PROXY_USER = "1337:1337"
STAMP = "istio.io/istio/pkg/version.buildVersion"
PACKAGES = {
    "pilot-discovery": "istio.io/istio/pilot/cmd/pilot-discovery",
    "install-cni": "istio.io/istio/cni/cmd/install-cni",
    "istio-cni": "istio.io/istio/cni/cmd/istio-cni",
}
CHARTS = ("base", "istio-control/istio-discovery", "istio-cni", "ztunnel")
SETTINGS = {
    "profile": "ambient",
    "hub": HUB,
    "tag": TAG,
    "global.hub": HUB,
    "global.tag": TAG,
    "global.variant": "",
    "global.nativeNftables": "true",  # as ours; the image then needs no iptables
}
RELEASED = {
    "istio-control/istio-discovery": {"resources.requests.memory": "100Mi", "resources.requests.cpu": "10m"},
    "ztunnel": {"resources.requests.memory": "50Mi", "resources.requests.cpu": "10m"},
}
"""What is asked of the scheduler, less than by default: this is a small machine."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TIMEOUT = 240


def prepare(ztunnel: Path) -> list[Path]:
    """The image archives; builds what is missing. Raises AmbitError."""
    stamps = {STAMP: version()}
    built = programs.build_all((Program(name, package, stamps), SOURCE) for name, package in PACKAGES.items())
    nft = Path(shutil.which("nft") or "/usr/sbin/nft")
    folder = cache() / "istio-images"
    folder.mkdir(parents=True, exist_ok=True)
    pilot, cni = "/usr/local/bin/pilot-discovery", "/usr/local/bin/install-cni"
    contents: list[tuple[str, str, dict[str, Path], str]] = [
        ("pilot", pilot, {pilot: built / "pilot-discovery", str(CERTIFICATES): CERTIFICATES}, PROXY_USER),
        (
            "install-cni",
            cni,
            {
                cni: built / "install-cni",
                "/opt/cni/bin/istio-cni": built / "istio-cni",
                "/usr/sbin/nft": nft,
                **libraries_of(nft),
            },
            "",
        ),
        (
            "ztunnel",
            "/usr/local/bin/ztunnel",
            {"/usr/local/bin/ztunnel": ztunnel, **libraries_of(ztunnel)},
            "",
        ),
    ]
    return [
        pack_files(folder / f"{name}.tar", f"{HUB}/{name}:{TAG}", files, program, user)
        for name, program, files, user in contents
    ]


def install(cluster: Cluster) -> None:
    """Istio is ready on every node when this returns. Raises AmbitError."""
    charts = _module() / "manifests" / "charts"
    for chart in CHARTS:
        values = {**SETTINGS, **RELEASED.get(chart, {})}
        settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        release = f"istio-{Path(chart).name}"
        words = [
            "helm",
            "install",
            release,
            str(charts / chart),
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ]
        _checked(cluster, [*words, *settings])
    workloads = ("deployment/istiod", "daemonset/istio-cni-node", "daemonset/ztunnel")
    for workload in workloads:
        words = ["kubectl", "-n", NAMESPACE, "rollout", "status", workload, f"--timeout={TIMEOUT}s"]
        _checked(cluster, words)


def version() -> str:
    """The pinned version of Istio's module."""
    found = re.search(r"istio\.io/istio (v\S+)", (SOURCE / "go.mod").read_text())
    assert found is not None
    return found[1]


def _module() -> Path:
    """Where Go keeps the module's files, the charts among them."""
    words = ["go", "list", "-m", "-json", "istio.io/istio"]
    done = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True)
    if done.returncode:
        raise AmbitError(f"Istio's module is not there: {done.stderr.strip()}")
    return Path(json.loads(done.stdout)["Dir"])


def libraries_of(program: Path) -> dict[str, Path]:
    """The shared libraries of a program, and its loader, under the paths where it looks for them."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return {
        path: Path(path).resolve() for path in re.findall(r"(/\S+)", done.stdout) if path != f"{program}:"
    }


def _checked(cluster: Cluster, words: list[str]) -> None:
    command = [*cluster.inside(), *words]
    done = subprocess.run(command, env=lifecycle.environment(cluster), capture_output=True, text=True)
    if done.returncode:
        raise AmbitError(f"`{' '.join(words[:4])} …` failed: {(done.stderr or done.stdout).strip()}")
