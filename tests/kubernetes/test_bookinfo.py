"""Istio's bookinfo on real kubelets, its manifest unchanged: enrolled while it serves, then judged from outside."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.kubernetes.inside import Kubernetes
from tests.kubernetes.wire import Wire, captured

pytestmark = pytest.mark.kubernetes

SAMPLES = Path(__file__).parents[2] / "examples/istio"
NAMESPACE = "bookinfo"
TRUST = f"spiffe://cluster.local/ns/{NAMESPACE}/sa/"
DATAPLANE = "istio.io/dataplane-mode"
REDIRECTED = r"jsonpath={.items[*].metadata.annotations.ambient\.istio\.io/redirection}"
BEFORE, AFTER = 20, 20
LOAD = """
while [ ! -e /tmp/enough ]; do
  for path in productpage api/v1/products/0 api/v1/products/0/reviews api/v1/products/0/ratings; do
    curl -s -m 10 -o /dev/null -w "$path %{http_code} %{errormsg} after %{time_total} s\\n" http://productpage:9080/$path
  done
done
"""
ONLY_REVIEWS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ratings-from-reviews}
spec:
  selector: {matchLabels: {app: ratings}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-reviews]}}]
"""


class Enrolment(msgspec.Struct):
    """What was seen while the namespace was enrolled under load."""

    answers: list[str]
    """Path, code, what curl complained of, and seconds, one line per request."""
    pods_before: dict[str, Any]
    pods_after: dict[str, Any]
    plain: Wire
    marker: str


@pytest.fixture(scope="module")
def bookinfo(kubernetes: Kubernetes) -> Iterator[Enrolment]:
    """Bookinfo and a curl pod, started outside the mesh and enrolled by the label while requests are under way."""
    with kubernetes.namespace(NAMESPACE):
        for sample in ("bookinfo", "curl"):
            kubernetes.kubectl("-n", NAMESPACE, "apply", "-f", str(SAMPLES / f"{sample}.yaml"))
        kubernetes.kubectl(
            "-n", NAMESPACE, "wait", "deployment", "--all", "--for=condition=Available", "--timeout=60s"
        )
        kubernetes.wait(
            "productpage", lambda: _code(kubernetes, "http://productpage:9080/productpage") == "200"
        )
        marker = uuid.uuid4().hex
        plain = _marked_request(kubernetes, marker)
        before = _pods(kubernetes)
        answers = _enrol_under_load(kubernetes)
        yield Enrolment(answers, before, _pods(kubernetes), plain, marker)


@pytest.mark.feature("F1", "F162")
def test_enrolling_by_the_label_restarts_nothing_and_fails_no_request(bookinfo: Enrolment) -> None:
    assert len(bookinfo.answers) > BEFORE + AFTER
    assert [answer for answer in bookinfo.answers if " 200 " not in answer] == []
    assert bookinfo.pods_after == bookinfo.pods_before


@pytest.mark.feature("F6", "F14")
def test_every_connection_is_mutual_tls_with_both_identities(
    kubernetes: Kubernetes, bookinfo: Enrolment
) -> None:
    began = time.time()
    for _ in range(5):
        assert _code(kubernetes, "http://productpage:9080/productpage") == "200"

    def reported() -> list[dict[str, Any]]:
        return [flow for flow in _flows() if flow["time"] >= began]

    kubernetes.wait(
        "flows of all services", lambda: _callees(reported()) >= {"productpage", "details", "reviews"}
    )
    flows = reported()
    for flow in flows:
        assert flow.get("mutualTls"), flow
        assert flow["source"]["identity"].startswith(TRUST), flow
        assert flow["destination"]["identity"].startswith(TRUST), flow
    assert "tunnel" in {flow["hop"] for flow in flows}


@pytest.mark.feature("F6")
def test_between_nodes_the_marker_is_seen_before_and_not_after(
    kubernetes: Kubernetes, bookinfo: Enrolment
) -> None:
    assert (
        bookinfo.marker.encode() in bookinfo.plain.content
    )  # the same capture does find what is in the clear
    marker = uuid.uuid4().hex
    wire = _marked_request(kubernetes, marker)
    assert len(wire.content) > 500
    assert marker.encode() not in wire.content
    assert b"HTTP/1.1" not in wire.content


@pytest.mark.feature("F12")
def test_a_policy_lets_only_reviews_ask_for_ratings(kubernetes: Kubernetes, bookinfo: Enrolment) -> None:
    url = "http://ratings:9080/ratings/0"
    assert _code(kubernetes, url) == "200"
    kubernetes.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=ONLY_REVIEWS)
    kubernetes.wait("the policy refuses curl", lambda: _code(kubernetes, url) != "200")
    # Two of three versions of reviews ask for ratings, and they still may.
    kubernetes.wait("reviews with stars", lambda: '"stars"' in _reviews(kubernetes))
    kubernetes.wait("records of what was denied", lambda: bool(_denied_by("ratings-from-reviews")))
    denied = _denied_by("ratings-from-reviews")
    assert {flow["source"]["identity"] for flow in denied} == {f"{TRUST}curl"}
    kubernetes.kubectl("-n", NAMESPACE, "delete", "authorizationpolicy", "ratings-from-reviews")
    kubernetes.wait("the policy's end", lambda: _code(kubernetes, url) == "200")


def _enrol_under_load(kubernetes: Kubernetes) -> list[str]:
    words = ["kubectl", "-n", NAMESPACE, "exec", "deploy/curl", "--", "sh", "-c", LOAD]
    load = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert load.stdout is not None
    try:
        answers = [load.stdout.readline().strip() for _ in range(BEFORE)]
        kubernetes.kubectl("label", "namespace", NAMESPACE, f"{DATAPLANE}=ambient")
        kubernetes.wait("all pods are enrolled", lambda: _all_redirected(kubernetes))
        answers += [load.stdout.readline().strip() for _ in range(AFTER)]
    finally:
        kubernetes.execute(NAMESPACE, "deploy/curl", "touch", "/tmp/enough")
        rest = load.stdout.read()  # `communicate` would lose what `readline` has read ahead
        load.wait(timeout=60)
    return answers + rest.splitlines()


def _all_redirected(kubernetes: Kubernetes) -> bool:
    said = kubernetes.kubectl("-n", NAMESPACE, "get", "pods", "-o", REDIRECTED).split()
    return said == ["enabled"] * len(_pods(kubernetes))


def _pods(kubernetes: Kubernetes) -> dict[str, Any]:
    """Uid and restart counts of every pod, by name."""
    pods = json.loads(kubernetes.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            [each["restartCount"] for each in pod["status"]["containerStatuses"]],
        )
        for pod in pods
    }


def _marked_request(kubernetes: Kubernetes, marker: str) -> Wire:
    """One request with a header of its own from the curl pod to a bookinfo pod on another node."""
    pods = json.loads(kubernetes.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    node = next(pod["spec"]["nodeName"] for pod in pods if pod["metadata"]["labels"]["app"] == "curl")
    target = next(pod["status"]["podIP"] for pod in pods if pod["spec"]["nodeName"] != node)
    with captured(node) as wire:
        done = _curl(kubernetes, "-H", f"x-marker: {marker}", f"http://{target}:9080/health")
        assert done.returncode == 0, done.stderr
    return wire


def _curl(kubernetes: Kubernetes, *words: str) -> subprocess.CompletedProcess[str]:
    return kubernetes.execute(NAMESPACE, "deploy/curl", "curl", "-s", "-m", "10", *words)


def _code(kubernetes: Kubernetes, url: str) -> str:
    return _curl(kubernetes, "-o", "/dev/null", "-w", "%{http_code}", url).stdout


def _reviews(kubernetes: Kubernetes) -> str:
    return _curl(kubernetes, "http://productpage:9080/api/v1/products/0/reviews").stdout


def _flows(*words: str) -> list[dict[str, Any]]:
    """The flows of the namespace, as `ambit flows` tells them."""
    choice = ["--kubeconfig", os.environ["KUBECONFIG"], "--from", f"{NAMESPACE}/", "--last", "2000"]
    command = [sys.executable, "-m", "ambit", "flows", *choice, "-o", "json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _denied_by(policy: str) -> list[dict[str, Any]]:
    found = _flows("--denied")
    return [flow for flow in found if flow.get("policy", "").startswith(f"{NAMESPACE}/{policy}")]


def _callees(flows: list[dict[str, Any]]) -> set[str]:
    return {flow["destination"].get("workload", "").rsplit("-", 3)[0] for flow in flows}
