"""Certificates that live for seconds, under traffic: signed by another authority, without an authority."""

import base64
import datetime as dt
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ambit.ca.authority import Authority, AuthorityFiles
from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.ca.authorities import intermediate_of, revoked_by
from tests.mesh.renewal import all_renewed, nobody_noticed
from tests.mesh.test_faults import only
from tests.mesh.traffic import start_traffic
from tests.soak import long

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("changes the authority and the lifetime of certificates of the whole mesh"),
]
NAMESPACE = "certificates"
SYSTEM = "ambit-system"
LIFE = long(40, 60)
"""Seconds that a certificate lives."""
SIGNED = 4.0
"""Seconds in which a certificate is renewed, of an authority that is there, also on a busy machine."""
CONTROL = ("-n", SYSTEM, "deployment/ambit-control")


@contextmanager
def short_lived(kubectl_program: str | None, seconds: int) -> Iterator[LaptopMesh]:
    """An instance whose certificates live so long, with traffic from one node to the other."""
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        mesh = start_mesh(Path(root), kubectl_program)
        try:
            path = "/spec/template/spec/containers/0/args/-"
            words = ("--certificate-lifetime", f"{seconds}s")
            patch = [{"op": "add", "path": path, "value": word} for word in words]
            mesh.kubectl("patch", *CONTROL, "--type=json", "-p", json.dumps(patch))
            mesh.kubectl("rollout", "status", *CONTROL, "--timeout=110s")
            mesh.create_namespace(NAMESPACE, {"istio.io/dataplane-mode": "ambient"})
            start_traffic(mesh, NAMESPACE)
            yield mesh
        finally:
            mesh.ambit("down")


@pytest.fixture(scope="module")
def brief(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    with short_lived(kubectl_program, LIFE) as mesh:
        yield mesh


def trust(mesh: LaptopMesh) -> dict[str, Any]:
    """What `ambit certs root` says; asked again while a control plane is about to go or to come."""

    def asked() -> dict[str, Any] | None:
        answer = mesh.ambit("certs", "root", "-o", "json", check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    found: dict[str, Any] = mesh.wait("the control plane says what is trusted", asked)
    return found


def changed(mesh: LaptopMesh, former: str) -> dict[str, Any]:
    """What is trusted once another authority than the one with this key signs and is trusted alone, by every node."""

    def settled() -> dict[str, Any] | None:
        found = trust(mesh)
        alone = found["phase"] == "steady" and found["signer"] != former
        return found if alone and not found["behind"] else None

    found: dict[str, Any] = mesh.wait("the new authority is the only one", settled)
    return found


def plug_in(mesh: LaptopMesh, files: AuthorityFiles, revoked: str = "") -> None:
    texts = {
        "ca-cert.pem": files.certificate,
        "ca-key.pem": files.key,
        "root-cert.pem": files.roots,
        "cert-chain.pem": files.chain,
        "ca-crl.pem": revoked,
    }
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": "cacerts", "namespace": SYSTEM}
    mesh.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


@pytest.mark.feature("F10", "F23")
def test_an_authority_that_is_frozen_for_nearly_half_of_a_life_costs_nothing(brief: LaptopMesh) -> None:
    all_renewed(brief, NAMESPACE)
    begin = time.time()
    pid = only(brief, "control plane")
    os.kill(pid, signal.SIGSTOP)
    try:
        brief.wait("a good part of half of a life has passed", lambda: time.time() > begin + 14)
    finally:
        os.kill(pid, signal.SIGCONT)
    all_renewed(brief, NAMESPACE)
    nobody_noticed(brief, NAMESPACE, begin)


@pytest.mark.timeout(400)
def test_one_root_follows_another_under_traffic(brief: LaptopMesh) -> None:
    """With two replicas: nodes talk to either."""
    begin, former = time.time(), trust(brief)
    brief.kubectl("scale", *CONTROL, "--replicas=2")
    brief.kubectl("rollout", "status", *CONTROL, "--timeout=110s")
    assert (former["phase"], former["source"]) == ("steady", "istio-ca-secret")
    brief.ambit("certs", "root", "rotate")
    own = changed(brief, former["signer"])
    assert len(own["certificates"]) == 1

    now = dt.datetime.now(dt.UTC)
    root = Authority.create("cluster.local", now)
    plug_in(brief, intermediate_of(root, now))
    plugged = changed(brief, own["signer"])
    assert (plugged["source"], len(plugged["certificates"]), plugged["problem"]) == ("cacerts", 1, "")
    assert brief.ambit("certs", "root", "rotate", check=False).returncode == 2
    chains = [entry["certChain"] for entries in brief.dump("certs").values() for entry in entries]
    assert chains and all(len(chain) == 2 for chain in chains), "leaf and intermediate"

    path = "jsonpath={.data.root-cert\\.pem}"
    words = ("get", "configmap", "istio-ca-root-cert", "-n", NAMESPACE, "-o", path)
    brief.wait("it is published", lambda: brief.kubectl(*words).stdout == root.roots)
    nobody_noticed(brief, NAMESPACE, begin)


@pytest.mark.feature("N6")
@pytest.mark.timeout(300)
def test_revocation_lists_are_taken_up_under_traffic(brief: LaptopMesh) -> None:
    """Lists that revoke others than those in use: everybody goes on."""
    former = trust(brief)
    now = dt.datetime.now(dt.UTC)
    root = Authority.create("cluster.local", now - dt.timedelta(hours=1))
    files, other = intermediate_of(root, now), intermediate_of(root, now, "stolen").load()
    plug_in(brief, files)
    changed(brief, former["signer"])
    begin = time.time()
    stolen = other.path[0].serial_number
    plug_in(brief, files, revoked_by(root, [stolen], now, dt.timedelta(days=1)))
    brief.wait(
        "every node has the lists",
        lambda: (found := trust(brief))["revoked"] == 1 and not found["behind"],
    )
    all_renewed(brief, NAMESPACE)
    nobody_noticed(brief, NAMESPACE, begin)


@pytest.mark.feature("F10")
@pytest.mark.soak
@pytest.mark.timeout(long(300, 4 * 3600))
def test_an_authority_away_for_half_of_each_life_costs_nothing(brief: LaptopMesh) -> None:
    """Stopped and started anew in each life of a certificate."""
    rounds = long(1, int(os.environ.get("AMBIT_SOAK_ROUNDS", "15")))
    all_renewed(brief, NAMESPACE)
    judged, start = 0, 8.0
    for _ in range(2 * rounds):
        begin = time.time()
        brief.kubectl("scale", *CONTROL, "--replicas=0")
        # Its start is a part of its absence, and takes as long as the machine wants.
        enough = begin + max(5.0, LIFE / 2 - 1 - SIGNED - start)
        brief.wait("it was away long enough", lambda enough=enough: time.time() > enough)  # type: ignore[misc]
        starting = time.time()
        brief.kubectl("scale", *CONTROL, "--replicas=1")
        brief.kubectl("rollout", "status", *CONTROL, "--timeout=110s")
        start = time.time() - starting
        all_renewed(brief, NAMESPACE)
        brief.wait("the round is over", lambda begin=begin: time.time() > begin + LIFE)  # type: ignore[misc]
        if starting + start - begin <= LIFE / 2 - SIGNED:
            nobody_noticed(brief, NAMESPACE, begin)
            judged += 1
        if judged == rounds:
            return
    pytest.skip("the machine was too slow: in too many rounds the authority was away for longer than meant")
