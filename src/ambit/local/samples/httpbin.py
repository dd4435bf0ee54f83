"""The part of httpbin that samples and tests use, answering as go-httpbin does (header values are lists)."""

import json
import os
import sys
import time
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from ambit.local.samples.web import Request, Response, in_json, serve

_LONGEST_DELAY = 10.0
_MOST_BYTES = 100 * 1024
_INDEX = b"<!DOCTYPE html><html><head><title>httpbin</title></head><body><h1>httpbin</h1></body></html>\n"


def main() -> None:
    """argv: port."""
    serve(int(sys.argv[1]), handle)


def handle(request: Request) -> Response:
    first, _, rest = request.path.lstrip("/").partition("/")
    if first in {"get", "post", "put", "patch", "delete"} and not rest:
        if request.method not in {first.upper(), "HEAD"}:
            return in_json({"status_code": 405, "error": "Method Not Allowed"}, 405)
        return in_json(_echo(request))
    simple = {
        "": lambda: Response(200, _INDEX, "text/html; charset=utf-8"),
        "anything": lambda: in_json(_echo(request)),
        "headers": lambda: in_json({"headers": _headers(request)}),
        "ip": lambda: in_json({"origin": request.peer}),
        "user-agent": lambda: in_json({"user-agent": request.headers.get("user-agent", "")}),
        "uuid": lambda: in_json({"uuid": str(uuid4())}),
        "hostname": lambda: in_json({"hostname": os.environ.get("HOSTNAME", "")}),
        "health": lambda: Response(200, b"ok\n"),
    }
    if first in simple:
        return simple[first]()
    numbered = {"status": _status, "delay": _delay, "bytes": _bytes}
    if first in numbered and rest:
        return numbered[first](rest.split("/")[0], request)
    return in_json({"status_code": 404, "error": "Not Found"}, 404)


def _status(text: str, request: Request) -> Response:
    del request
    if not text.isdigit() or not 200 <= int(text) <= 599:
        return in_json({"status_code": 400, "error": "Bad Request", "detail": "invalid status code"}, 400)
    return Response(int(text))


def _delay(text: str, request: Request) -> Response:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        return in_json({"status_code": 400, "error": "Bad Request", "detail": "invalid duration"}, 400)
    time.sleep(min(max(seconds, 0.0), _LONGEST_DELAY))
    return in_json(_echo(request))


def _bytes(text: str, request: Request) -> Response:
    del request
    if not text.isdigit():
        return in_json({"status_code": 400, "error": "Bad Request", "detail": "invalid count"}, 400)
    return Response(200, os.urandom(min(int(text), _MOST_BYTES)), "application/octet-stream")


def _headers(request: Request) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for name, value in request.shown:
        result.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    return result


def _echo(request: Request) -> dict[str, Any]:
    scheme = request.headers.get("x-forwarded-proto", "http")
    answer: dict[str, Any] = {
        "args": {name: [value] for name, value in request.query.items()},
        "headers": _headers(request),
        "method": request.method,
        "origin": request.peer,
        "url": f"{scheme}://{request.headers.get('host', '')}{request.target}",
    }
    if request.method in {"POST", "PUT", "PATCH", "DELETE"} or request.body:
        text = request.body.decode(errors="replace")
        answer |= {"data": text, "files": {}, "form": {}, "json": None}
        kind = request.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            answer["form"] = {name: [value] for name, value in parse_qsl(text)}
        elif kind.startswith("application/json"):
            try:
                answer["json"] = json.loads(text)
            except ValueError:
                answer["json"] = None
    return answer
