"""The four services of Istio's Bookinfo, with the same paths, ports and JSON shapes. `bookinfo.py <service>
<port>`.

Source: istio.io/docs/examples/bookinfo; the environment variables are those of its images.
"""

import html
import json
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote

from ambit.local.samples.web import Handler, Request, Response, fetch, in_json, serve

_FORWARDED = (
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
)
_TITLE = "The Comedy of Errors"
_SUMMARY = (
    '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: one of '
    "<b>William Shakespeare's</b> early plays, and his shortest: a farce of two pairs of twins and mistaken identity."
)
_TEXTS = (
    "Two pairs of twins, one city, and a goldsmith who only wants his money: the fastest evening Shakespeare wrote.",
    "I laughed all the way through. Those who look for the depth of his later plays will not find it here.",
)
_ratings: dict[int, Any] = {}


def main() -> None:
    """argv: service name, port."""
    services: dict[str, Callable[[Request], Response]] = {
        "productpage": productpage,
        "details": details,
        "reviews": reviews,
        "ratings": ratings,
    }
    handler: Handler = services[sys.argv[1]]
    serve(int(sys.argv[2]), handler)


def details(request: Request) -> Response:
    if request.path == "/health":
        return in_json({"status": "Details is healthy"})
    number = _number(request.path, "/details/")
    if number is None:
        return in_json({"error": "please provide numeric product id"}, 400)
    return in_json(
        {
            "id": number,
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
        }
    )


def ratings(request: Request) -> Response:
    if request.path == "/health":
        return in_json({"status": "Ratings is healthy"})
    number = _number(request.path, "/ratings/")
    if number is None:
        return in_json({"error": "please provide numeric product ID"}, 400)
    if request.method == "POST":
        try:
            _ratings[number] = json.loads(request.body)
        except ValueError:
            return in_json({"error": "please provide valid ratings JSON"}, 400)
    return in_json({"id": number, "ratings": _ratings.get(number, {"Reviewer1": 5, "Reviewer2": 4})})


def reviews(request: Request) -> Response:
    if request.path == "/health":
        return in_json({"status": "Reviews is healthy"})
    number = _number(request.path, "/reviews/")
    if number is None:
        return in_json({"error": "please provide numeric product id"}, 400)
    entries: list[dict[str, Any]] = [
        {"reviewer": f"Reviewer{index}", "text": text} for index, text in enumerate(_TEXTS, 1)
    ]
    if os.environ.get("ENABLE_RATINGS", "false") == "true":
        color = os.environ.get("STAR_COLOR", "black")
        status, answer = _call("ratings", number, request, 10.0 if color == "black" else 2.5)
        for entry in entries:
            stars = answer.get("ratings", {}).get(entry["reviewer"]) if status == 200 else None
            if stars is None:
                entry["rating"] = {"error": "Ratings service is currently unavailable"}
            else:
                entry["rating"] = {"stars": stars, "color": color}
    pod, cluster = os.environ.get("HOSTNAME"), os.environ.get("CLUSTER_NAME")
    return in_json({"id": str(number), "podname": pod, "clustername": str(cluster), "reviews": entries})


def productpage(request: Request) -> Response:
    path = request.path.rstrip("/") or "/"
    if path in {"/", "/index.html"}:
        link = '<p><a href="/productpage">Normal user</a></p>'
        return _page("<h1>Hello! This is a simple bookstore application</h1>" + link)
    if path == "/health":
        return Response(200, b"Product page is healthy", "text/html")
    if path == "/login" and request.method == "POST":
        user = dict(parse_qsl(request.body.decode())).get("username", "")
        return Response(
            302, headers={"Location": "/productpage", "Set-Cookie": f"user={quote(user)}; Path=/"}
        )
    if path == "/logout":
        return Response(302, headers={"Location": "/productpage", "Set-Cookie": "user=; Path=/; Max-Age=0"})
    if path == "/productpage":
        return _product_page(request)
    return _product_api(path, request)


def _product_api(path: str, request: Request) -> Response:
    if path == "/api/v1/products":
        return in_json([{"id": 0, "title": _TITLE, "descriptionHtml": _SUMMARY}])
    parts = path.removeprefix("/api/v1/products/").split("/")
    if not path.startswith("/api/v1/products/") or not parts[0].isdigit() or len(parts) > 2:
        return Response(404, b"not found\n")
    service = "details" if len(parts) == 1 else parts[1]
    if service not in {"details", "reviews", "ratings"}:
        return Response(404, b"not found\n")
    status, answer = _ask(service, int(parts[0]), request)
    return in_json(answer, status)


def _product_page(request: Request) -> Response:
    details_status, book = _ask("details", 0, request)
    reviews_status, answer = _ask("reviews", 0, request)
    user = html.escape(_user(request))
    parts = [f"<p>Signed in as {user}</p>" if user else "", f"<h1>{_TITLE}</h1><p>{_SUMMARY}</p>"]
    parts.append("<h2>Book Details</h2>")
    if details_status == 200:
        rows = "".join(f"<dt>{html.escape(key)}:</dt><dd>{html.escape(str(book[key]))}</dd>" for key in book)
        parts.append(f"<dl>{rows}</dl>")
    else:
        parts.append(f"<p>Error fetching product details!</p><p>{book['error']}</p>")
    parts.append("<h2>Book Reviews</h2>")
    if reviews_status == 200:
        parts += [_review(entry) for entry in answer["reviews"]]
        parts.append(f"<p>Reviews served by: <b>{html.escape(str(answer.get('podname')))}</b></p>")
    else:
        parts.append(f"<p>Error fetching product reviews!</p><p>{answer['error']}</p>")
    return _page("".join(parts))


def _review(entry: dict[str, Any]) -> str:
    text = f"<blockquote><p>{html.escape(entry['text'])}</p><small>{html.escape(entry['reviewer'])}</small>"
    rating = entry.get("rating")
    if rating and "stars" in rating:
        color = "red" if rating["color"] == "red" else "black"
        stars = "".join(
            f'<span class="glyphicon glyphicon-star{"" if index < rating["stars"] else "-empty"}">'
            f"{'★' if index < rating['stars'] else '☆'}</span>"
            for index in range(5)
        )
        text += f'<p style="color: {color}" title="{color} stars">{stars}</p>'
    elif rating:
        text += f"<p><i>{html.escape(rating['error'])}</i></p>"
    return text + "</blockquote>"


def _page(body: str) -> Response:
    head = '<!DOCTYPE html><html><head><meta charset="utf-8"><title>Simple Bookstore App</title></head>'
    style = '<body style="font-family: sans-serif; max-width: 50em; margin: 2em auto">'
    return Response(200, f"{head}{style}{body}</body></html>\n".encode(), "text/html; charset=utf-8")


def _ask(service: str, number: int, request: Request) -> tuple[int, dict[str, Any]]:
    """As the product page asks: reviews twice, within the 3 s that the fault-injection task relies on."""
    status = 500
    for _ in range(2 if service == "reviews" else 1):
        status, answer = _call(service, number, request, 3.0)
        if status == 200:
            return status, answer
    word = "product details" if service == "details" else f"product {service}"
    return status, {"error": f"Sorry, {word} are currently unavailable for this book."}


def _call(service: str, number: int, request: Request, timeout: float) -> tuple[int, dict[str, Any]]:
    headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
    user = _user(request)
    if user:
        headers["end-user"] = user
    domain = os.environ.get("SERVICES_DOMAIN")
    host = os.environ.get(f"{service.upper()}_HOSTNAME", service) + (f".{domain}" if domain else "")
    port = int(os.environ.get(f"{service.upper()}_SERVICE_PORT", "9080"))
    try:
        status, body = fetch(host, port, f"/{service}/{number}", headers, timeout)
        return status, json.loads(body) if status == 200 else {}
    except (OSError, ValueError, IndexError):
        return 500, {}


def _user(request: Request) -> str:
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "user":
            return value
    return ""


def _number(path: str, prefix: str) -> int | None:
    rest = path.removeprefix(prefix)
    return int(rest) if path.startswith(prefix) and rest.isdigit() else None
