"""What a Prometheus in a pod finds by the pods' annotations: every metric of the alerts, and nothing but metrics."""

import json
import re

import pytest

from ambit.testing.mesh import Mesh
from tests.charts.alerts import metrics_of_alerts
from tests.mesh.pods import make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

GET = """
import json, sys, urllib.error, urllib.request
def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as problem:
        return str(problem.code)
    except OSError as problem:
        return "no answer"
print(json.dumps([get(url) for url in sys.argv[1:]]))
"""
DEBUG = ("/debug/syncz", "/debug/proxies", "/debug/trust", "/debug/findings", "/version")


def targets(mesh: Mesh) -> dict[str, list[str]]:
    """URLs that the annotations of running pods name, by the pod's label `app`, or `gateway`."""
    found: dict[str, list[str]] = {}
    for each in json.loads(mesh.kubectl("get", "pods", "-A", "-o", "json").stdout)["items"]:
        annotations, address = each["metadata"].get("annotations", {}), each["status"].get("podIP", "")
        if annotations.get("prometheus.io/scrape") == "true" and each["status"]["phase"] == "Running":
            host = f"[{address}]" if ":" in address else address
            part = each["metadata"]["labels"].get("app", "gateway")
            url = f"http://{host}:{annotations['prometheus.io/port']}{annotations['prometheus.io/path']}"
            found.setdefault(part, []).append(url)
    return found


@pytest.mark.feature("F168")
def test_a_prometheus_in_a_pod_finds_every_metric_of_the_alerts(mesh: Mesh) -> None:
    with make_namespace(mesh, enrolled=False) as namespace:
        mesh.apply(pod("prometheus", mesh.nodes[0], ["sleep", "infinity"], namespace=namespace))
        mesh.ambit("waypoint", "apply", "-n", namespace, "--wait", timeout=120)
        ready = ("pod/prometheus", "--for=condition=Ready", "--timeout=110s")
        mesh.kubectl("wait", "-n", namespace, *ready)

        def get(*urls: str) -> list[str]:
            answers: list[str] = json.loads(
                mesh.exec(namespace, "prometheus", "python3", "-c", GET, *urls).stdout
            )
            return answers

        def served() -> set[str]:
            """Names of all metrics, once the control plane has counted an answer and a push."""
            urls = [url for each in targets(mesh).values() for url in each]
            text = "\n".join(get(*urls))
            counted = "pilot_xds_pushes{" in text and "ambit_xds_answers_total{" in text
            return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) if counted else set()

        missing = metrics_of_alerts() - mesh.wait("the control plane's pushes are scraped", served)
        assert not missing, f"no scraped pod serves {sorted(missing)}"

        found = targets(mesh)
        assert len(found["ztunnel"]) == len(mesh.nodes)
        [control] = [url.removesuffix("/metrics") for url in found["istiod"]]
        assert get(*(control + path for path in DEBUG)) == ["404"] * len(DEBUG)
