"""What programs of pods begin with that answer over gRPC: `serve(port, answer)`, where `answer` is given the bytes of a
message and returns those of the answer.

It knows no more of HTTP/2 than that takes: any pod with a `python3` runs it.
"""

SERVE = r"""
import socket, struct, threading

DATA, HEADERS, SETTINGS, PING, WINDOW = 0, 1, 4, 6, 8
ENDS, IS_WHOLE, IS_ANSWER = 1, 4, 1

def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

BEGIN = b"\x88" + literal(b"content-type", b"application/grpc")  # :status 200
END = literal(b"grpc-status", b"0")

def talk(connection, answer):
    stream = connection.makefile("rb")
    def send(kind, flags, number, body=b""):
        connection.sendall(struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + body)
    stream.read(24)
    send(SETTINGS, 0, 0)
    told = {}
    while len(head := stream.read(9)) == 9:
        body = stream.read(int.from_bytes(head[:3], "big"))
        kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind in (SETTINGS, PING) and not flags & IS_ANSWER:
            send(kind, IS_ANSWER, 0, body if kind == PING else b"")
        if kind == DATA:
            told[number] = told.get(number, b"") + body
            if body:
                send(WINDOW, 0, 0, struct.pack(">I", len(body)))
            if flags & ENDS:
                said = answer(told.pop(number)[5:])
                send(HEADERS, IS_WHOLE, number, BEGIN)
                send(DATA, 0, number, b"\0" + struct.pack(">I", len(said)) + said)
                send(HEADERS, IS_WHOLE | ENDS, number, END)

def serve(port, answer):
    listening = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=talk, args=[listening.accept()[0], answer], daemon=True).start()
"""
