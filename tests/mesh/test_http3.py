"""HTTP/3 at a gateway, as a client outside of the mesh speaks it."""

from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.mesh.pods import apply_in, make_namespace, pod, web_and_client
from tests.mesh.test_gateway import ASK, Shop, gateway, route
from tests.plan.gateway import http3

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

HOST = "shop.example.com"
# Becomes the Envoy beside one of the Pythons in PATH: that of the mesh, also where it is in an image.
_ENVOY = """
import glob, os, sys
places = (f"{each}/../lib/python3*/*-packages/envoy/_bin/envoy" for each in os.get_exec_path())
program = next(found for place in places for found in glob.glob(place))
os.execv(program, ["envoy", "--disable-hot-restart", "--concurrency", "1", "--config-yaml", sys.argv[1]])
"""
# Status, and what the answer says of other ways, asked by TCP.
_BY_TCP = """
import http.client, socket, ssl, sys
context = ssl.create_default_context(cadata=sys.argv[3])
context.verify_flags &= ~ssl.VERIFY_X509_STRICT
client = http.client.HTTPSConnection(sys.argv[1], 443, timeout=30, context=context)
client.sock = context.wrap_socket(socket.create_connection((sys.argv[1], 443), 30), server_hostname=sys.argv[2])
client.request("GET", "/", headers={"host": sys.argv[2]})
answer = client.getresponse()
print(answer.status, answer.getheader("alt-svc"))
"""


def _client(shop: Shop, server: str, root: str) -> dict[str, Any]:
    """A pod that takes requests in plain text, on its loopback, and sends them on by QUIC."""
    path = "jsonpath={.spec.template.spec.containers[0].image}"
    image = shop.mesh.kubectl("get", "deployment/front-ambit", "-n", shop.namespace, "-o", path).stdout
    command = ["python3", "-c", _ENVOY, http3.settings(server, root, HOST)]
    return pod("quic", shop.mesh.nodes[0], command, image=image)


def test_a_gateway_answers_by_quic_and_says_so_by_tcp(mesh: Mesh) -> None:
    with make_namespace(mesh) as inside, make_namespace(mesh, enrolled=False) as outside:
        shop, authority = Shop(mesh, inside, outside), Authority()
        shown = secret("shown", authority.pair(HOST), namespace=inside)[1]
        listener = https("https", "shown", hostname=HOST)
        listener["tls"]["options"] = {"ambit.io/http3": "true"}
        apply_in(
            mesh,
            inside,
            [
                *web_and_client(),
                {"apiVersion": "v1", "kind": "Secret", **shown},
                gateway(listeners=[listener]),
                route({"backendRefs": [{"name": "web", "port": 80}]}),
            ],
        )
        address = shop.address()
        apply_in(
            mesh,
            outside,
            [pod("client", mesh.nodes[1], ["sleep", "3600"]), _client(shop, address, authority.root)],
        )

        def by_tcp() -> str:
            words = ("python3", "-c", _BY_TCP, address, HOST, authority.root)
            return mesh.exec(outside, "client", *words, check=False).stdout.strip()

        def by_quic() -> str:
            words = ("python3", "-c", ASK, "127.0.0.1", str(http3.PORT), "/", HOST)
            return mesh.exec(outside, "quic", *words, check=False).stdout.strip()

        mesh.wait("an answer by TCP", lambda: by_tcp() == '200 h3=":443"; ma=86400')
        mesh.wait("an answer by QUIC", lambda: by_quic().startswith("200 "))
        assert "Directory listing" in by_quic()
