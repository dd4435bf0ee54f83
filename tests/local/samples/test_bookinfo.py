import json

from bench.ports import free_port

from ambit.local.samples.bookinfo import reviews
from ambit.local.samples.web import Request, fetch
from tests.local.samples.conftest import Start

RELEASE = "registry.istio.io/release/examples-bookinfo"


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    return fetch(
        "127.0.0.1", port, path, {name.replace("_", "-"): value for name, value in headers.items()}, 60
    )


def test_the_four_services_together(start: Start) -> None:
    ports = {name: free_port() for name in ("productpage", "details", "reviews", "ratings")}
    environment = {f"{name.upper()}_SERVICE_PORT": str(port) for name, port in ports.items()}
    environment |= {f"{name.upper()}_HOSTNAME": "localhost" for name in ports}
    environment["HOSTNAME"] = "pod-1"
    for name, image in (
        ("details", "details-v1"),
        ("ratings", "ratings-v1"),
        ("reviews", "reviews-v3"),
        ("productpage", "productpage-v1"),
    ):
        start(f"{RELEASE}-{image}:1.20.3", ports[name], [str(ports[name])], **environment)

    status, body = get(ports["productpage"], "/productpage")
    page = body.decode()
    assert status == 200
    assert "<title>Simple Bookstore App</title>" in page
    assert page.count("glyphicon-star-empty") == 1, "five stars and four"
    assert "color: red" in page
    assert "pod-1" in page

    status, body = get(ports["productpage"], "/api/v1/products/0/reviews")
    assert status == 200
    answer = json.loads(body)
    assert answer["reviews"][0]["rating"] == {"stars": 5, "color": "red"}
    assert (answer["id"], answer["podname"], answer["clustername"]) == ("0", "pod-1", "None")
    assert json.loads(get(ports["productpage"], "/api/v1/products")[1])[0]["id"] == 0
    assert json.loads(get(ports["productpage"], "/api/v1/products/0")[1])["ISBN-10"] == "1234567890"
    for name, port in ports.items():
        assert get(port, "/health")[0] == 200, name
    assert get(ports["details"], "/details/x")[0] == 400
    assert get(ports["productpage"], "/nowhere")[0] == 404


def test_a_missing_service_is_named_on_the_page(start: Start) -> None:
    port, nowhere = free_port(), str(free_port())
    environment = {f"{name}_HOSTNAME": "localhost" for name in ("DETAILS", "REVIEWS", "RATINGS")}
    environment |= {f"{name}_SERVICE_PORT": nowhere for name in ("DETAILS", "REVIEWS", "RATINGS")}
    start(f"{RELEASE}-productpage-v1:1.20.3", port, [str(port)], **environment)
    page = get(port, "/productpage")[1].decode()
    assert "Error fetching product details!" in page
    assert "Sorry, product reviews are currently unavailable for this book." in page
    assert get(port, "/api/v1/products/0/ratings")[0] == 500


def test_first_version_shows_no_stars() -> None:
    answer = json.loads(reviews(Request("GET", "/reviews/0", [], b"", "::1")).body)
    assert all("rating" not in entry for entry in answer["reviews"])
