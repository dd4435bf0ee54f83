"""A server for pods that answers with a header of the request."""

_SERVER = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        said = str(self.headers.get("HEADER")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8080), Handler).serve_forever()
"""


def telling(header: str) -> str:
    """The program, on port 8080; it says `None` of a header that is not there."""
    return _SERVER.replace("HEADER", header)
