"""What the comparison on real nodes takes from this machine and from pods."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.__main__ import SUBJECTS
from bench.datapath.samples import processor_seconds
from bench.kubernetes import istio
from bench.kubernetes.measure import Phase
from bench.kubernetes.site import pids_of, use_of


def test_it_is_measured_only_when_named() -> None:
    assert "kubernetes" in {each.name for each in SUBJECTS if not each.usual}


def test_istio_is_of_one_pinned_version() -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+-\d{14}-[0-9a-f]{12}", istio.version())


def test_a_program_brings_its_libraries_and_their_loader() -> None:
    found = istio.libraries_of(Path(sys.executable).resolve())
    assert any("ld-linux" in path for path in found) and any("libc.so" in path for path in found)
    assert all(path.is_file() for path in found.values())


def test_every_mesh_is_measured_beside_pods_without_one() -> None:
    variants = Phase("ours", "system", lambda _: None, lambda _: None).variants()
    assert {each.baseline for each in variants} - {""} == {
        each.name for each in variants if not each.baseline
    }
    assert all(
        each.server == other.server for each in variants for other in variants if each.baseline == other.name
    )


def test_a_pod_is_called_after_what_made_it() -> None:
    def name(**metadata: Any) -> str:
        return use_of({"metadata": {"uid": "no such uid", **metadata}}).name

    assert name(name="ambit-node-x2x4z", generateName="ambit-node-") == "ambit-node"
    labels = {"pod-template-hash": "5d8f9"}
    assert name(name="istiod-5d8f9-abcde", generateName="istiod-5d8f9-", labels=labels) == "istiod"
    assert name(name="alone") == "alone"


def test_a_process_is_in_no_unknown_pod_and_has_used_time() -> None:
    assert pids_of("00000000-0000-0000-0000-000000000000") == []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert processor_seconds([process.pid, os.getpid()]) > processor_seconds([process.pid]) >= 0
    assert processor_seconds([process.pid]) == 0
