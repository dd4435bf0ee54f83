"""Istio's helloworld: says its version (`SERVICE_VERSION`) and which pod answered. Port 5000."""

import os

from ambit.local.samples.web import Request, Response, serve


def handle(request: Request) -> Response:
    if request.path == "/hello":
        version, instance = os.environ.get("SERVICE_VERSION"), os.environ.get("HOSTNAME")
        return Response(
            200, f"Hello version: {version}, instance: {instance}\n".encode(), "text/html; charset=utf-8"
        )
    if request.path == "/health":
        return Response(200, b"Helloworld is healthy", "text/html; charset=utf-8")
    return Response(404, b"not found\n")


def main() -> None:
    serve(5000, handle)
