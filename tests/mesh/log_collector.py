"""The program of a pod that is told of requests by OTLP over gRPC: it prints each message in base64."""

from tests.mesh.grpc_server import SERVE

PORT = 4317
PROGRAM = (
    SERVE
    + f"""
import base64

def answer(message):
    print(base64.b64encode(message).decode(), flush=True)
    return b""

serve({PORT}, answer)
"""
)
