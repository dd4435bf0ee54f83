"""A server that speaks TLS, and the policy by which it is spoken to."""

from typing import Any

# Serves by TLS, with the chain and key of its environment, and says by which name it was asked for.
SECURED = """
import http.server, os, ssl, tempfile
names = []
class Handler(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    def do_GET(self):
        said = f"secured {names[-1]}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
server = http.server.HTTPServer(("0.0.0.0", 8443), Handler)
with tempfile.NamedTemporaryFile("w") as file:
    file.write(os.environ["PAIR"])
    file.flush()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file.name)
context.sni_callback = lambda socket, name, _: names.append(name)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def roots(text: str) -> dict[str, Any]:
    """Whom the policy trusts."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"}, "data": {"ca.crt": text}}


def tls_policy(hostname: str, *targets: dict[str, str]) -> dict[str, Any]:
    """For servers of this name."""
    trusted = [{"group": "", "kind": "ConfigMap", "name": "roots"}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "secured"},
        "spec": {"targetRefs": targets, "validation": {"hostname": hostname, "caCertificateRefs": trusted}},
    }
