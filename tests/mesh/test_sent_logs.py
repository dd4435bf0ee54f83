"""Records of requests from a gateway and a waypoint, or the node of who calls, in the hands of a collector that is in
the mesh."""

import base64
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.log_collector import PORT, PROGRAM
from tests.mesh.placements import PLACEMENTS
from tests.mesh.settings import with_mesh_config
from tests.mesh.test_gateway import ASK
from tests.mesh.told import from_gateway_to_server
from tests.plan.collector import Record, records_in

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
SETTINGS = """
extensionProviders:
- name: told
  envoyOtelAls:
    service: collector.{namespace}.svc.cluster.local
    port: 4317
    logName: requests
    logFormat: {{text: "%REQ(:METHOD)% %REQ(:PATH)%", labels: {{code: "%RESPONSE_CODE%"}}}}
"""


def _telemetry(name: str, **entry: Any) -> dict[str, Any]:
    return {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": name},
        "spec": {"accessLogging": [{"providers": [{"name": "told"}], **entry}]},
    }


def _told(mesh: Mesh, namespace: str, path: str) -> dict[str, list[Record]]:
    """By who tells."""
    lines = mesh.kubectl("logs", "-n", namespace, "collector").stdout.split()
    found: dict[str, list[Record]] = {}
    for record in (record for line in lines for record in records_in(base64.b64decode(line))):
        if path in record.body:
            found.setdefault(record.resource["service.name"], []).append(record)
    return found


@pytest.mark.feature("F112")
@pytest.mark.parametrize("of_class", PLACEMENTS)
def test_a_collector_is_told_of_requests_as_telemetries_say(
    mesh: Mesh, namespace: str, of_class: str
) -> None:
    """It takes nothing but mutual TLS. The gateway tells of all, the waypoint of what fails; without a proxy between
    the client's node does, as the client."""
    with with_mesh_config(mesh, SETTINGS.format(namespace=namespace)):
        address = from_gateway_to_server(mesh, namespace, PROGRAM, PORT, _telemetry("all"), of_class=of_class)

        def answer(path: str, of: str) -> str:
            words = ("python3", "-c", ASK, of, "80", path, "shop.example.com")
            return mesh.exec(namespace, "client", *words, check=False).stdout.strip()

        def asked(path: str) -> list[str]:
            """By the gateway, and by the service."""
            return [answer(path, each) for each in (address, "web")]

        mesh.wait("both answer", lambda: all(each.startswith("200 ") for each in asked("/")))
        both = {f"front.{namespace}", f"way.{namespace}"}

        def tellers(path: str) -> set[str]:
            asked(path)
            return set(_told(mesh, namespace, path))

        mesh.wait("both tell", lambda: tellers("/both") == both)
        (record, *_) = _told(mesh, namespace, "/both")[f"way.{namespace}"]
        assert (record.body, record.attributes) == ("GET /both", {"code": "200"})
        assert record.resource["log_name"] == "requests"
        answer("/once", "web")
        mesh.wait("a record", lambda: _told(mesh, namespace, "/once"))

        failures = _telemetry("failures", filter={"expression": "response.code >= 400"})
        web = {"group": "", "kind": "Service", "name": "web"}
        failures["spec"]["targetRefs"] = [web]
        mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(failures))
        condition = ("--for=condition=WaypointAccepted", "--timeout=110s")
        mesh.kubectl("wait", "-n", namespace, "telemetry/failures", *condition)

        way, paths = f"way.{namespace}", ["/well/0/", "/well/1/"]

        def is_silent() -> bool:
            """Of a request that was well some time ago: proxies tell of one within a second."""
            paths.append(f"/well/{len(paths)}/")
            asked(paths[-1])
            return set(_told(mesh, namespace, paths[-3])) == {f"front.{namespace}"}

        mesh.wait("the waypoint is silent about what is well", is_silent)
        mesh.kubectl("delete", "-n", namespace, "pod/web", "--wait=false")

        def codes() -> set[str]:
            asked("/failed")
            return {each.attributes["code"] for each in _told(mesh, namespace, "/failed").get(way, [])}

        mesh.wait("the waypoint tells of failures", lambda: "503" in codes())
        ((teller, records),) = _told(mesh, namespace, "/once").items()
        assert (teller, len(records)) == (way, 1)
