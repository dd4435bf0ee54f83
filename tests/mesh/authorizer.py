"""The program of a pod that others ask about requests, over HTTP (port 8000) and over gRPC (port 9000).

It says no to paths with `/no` in them, and knows no more of HTTP/2 than that takes: any pod with a `python3` runs it.
"""

PROGRAM = r"""
import http.server, socket, struct, threading

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

DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
ENDS, IS_WHOLE, IS_ANSWER = 1, 4, 1

def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

BEGIN = b"\x88" + literal(b"content-type", b"application/grpc")  # :status 200
END = literal(b"grpc-status", b"0")
# envoy.service.auth.v3.CheckResponse: OK; PERMISSION_DENIED with the status 401.
YES, NO = bytes.fromhex("0a00"), bytes.fromhex("0a02080712050a03089103")

def talk(connection):
    stream = connection.makefile("rb")
    def send(kind, flags, number, body=b""):
        connection.sendall(struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + body)
    stream.read(24)
    send(SETTINGS, 0, 0)
    asked = {}
    while len(head := stream.read(9)) == 9:
        body = stream.read(int.from_bytes(head[:3], "big"))
        kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind in (SETTINGS, PING) and not flags & IS_ANSWER:
            send(kind, IS_ANSWER, 0, body if kind == PING else b"")
        if kind == DATA:
            asked[number] = asked.get(number, b"") + body
            if flags & ENDS:
                said = NO if b"/no" in asked.pop(number) else YES
                send(HEADERS, IS_WHOLE, number, BEGIN)
                send(DATA, 0, number, b"\0" + struct.pack(">I", len(said)) + said)
                send(HEADERS, IS_WHOLE | ENDS, number, END)

def serve(listening):
    while True:
        threading.Thread(target=talk, args=[listening.accept()[0]], daemon=True).start()

grpc = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
threading.Thread(target=serve, args=[grpc], daemon=True).start()
Server(("::", 8000), Handler).serve_forever()
"""
