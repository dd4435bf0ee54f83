"""The program of a pod that others ask about requests, over HTTP (port 8000) and over gRPC (port 9000).

It says no to paths with `/no` in them: any pod with a `python3` runs it.
"""

from tests.mesh.grpc_server import SERVE

PROGRAM = (
    SERVE
    + r"""
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        is_no = "/no" in self.path
        self.send_response(401 if is_no else 200)
        self.send_header("x-user", "ann")
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

# envoy.service.auth.v3.CheckResponse: OK; PERMISSION_DENIED with the status 401.
YES, NO = bytes.fromhex("0a00"), bytes.fromhex("0a02080712050a03089103")

def answer(message):
    return NO if b"/no" in message else YES

threading.Thread(target=serve, args=[9000, answer], daemon=True).start()
Server(("::", 8000), Handler).serve_forever()
"""
)
