import json
import socket

import pytest
from bench.ports import free_port
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2

from ambit.local.samples import ext_authz, helloworld, httpbin
from ambit.local.samples.web import Request, fetch
from tests.local.samples.conftest import Start


def ask(method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    shown = [(name.replace("_", "-"), value) for name, value in headers.items()]
    response = httpbin.handle(Request(method, target, shown, body, "10.0.0.1"))
    return response.status, response.body


def test_echo() -> None:
    status, body = ask("GET", "/get?a=1&b=", x_request_id="7", host="web:8000")
    answer = json.loads(body)
    assert status == 200
    assert answer["args"] == {"a": ["1"], "b": [""]}
    assert answer["headers"]["X-Request-Id"] == ["7"]
    assert answer["url"] == "http://web:8000/get?a=1&b="
    assert answer["origin"] == "10.0.0.1"


def test_posted_bodies() -> None:
    answer = json.loads(ask("POST", "/post", b'{"a":1}', content_type="application/json")[1])
    assert answer["json"] == {"a": 1}
    answer = json.loads(
        ask("POST", "/anything/x", b"a=1", content_type="application/x-www-form-urlencoded")[1]
    )
    assert answer["form"] == {"a": ["1"]}
    assert json.loads(ask("POST", "/post", b"{", content_type="application/json")[1])["json"] is None


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/status/418", 418),
        ("/status/99", 400),
        ("/status/x", 400),
        ("/delay/0", 200),
        ("/delay/x", 400),
        ("/post", 405),
        ("/nowhere", 404),
        ("/", 200),
        ("/uuid", 200),
        ("/hostname", 200),
    ],
)
def test_statuses(target: str, status: int) -> None:
    assert ask("GET", target)[0] == status


def test_bytes() -> None:
    assert len(ask("GET", "/bytes/100")[1]) == 100
    assert len(ask("GET", "/bytes/999999999")[1]) == 100 * 1024


def test_helloworld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_VERSION", "v2")
    monkeypatch.setenv("HOSTNAME", "pod")
    assert (
        helloworld.handle(Request("GET", "/hello", [], b"", "")).body == b"Hello version: v2, instance: pod\n"
    )


@pytest.mark.parametrize(
    ("headers", "status", "result"),
    [
        ([("X-Ext-Authz", "allow")], 200, "allowed"),
        ([("X-Ext-Authz", "deny")], 403, "denied"),
        ([], 403, "denied"),
    ],
)
def test_ext_authz(headers: list[tuple[str, str]], status: int, result: str) -> None:
    answer = ext_authz.handle(Request("GET", "/headers", headers, b"", "10.0.0.1"))
    assert (answer.status, answer.headers["x-ext-authz-check-result"]) == (status, result)
    assert (answer.body == b"") is (status == 200)


def test_ext_authz_by_grpc() -> None:
    for value in ("allow", "deny", ""):
        request = attribute_context_pb2.AttributeContext.HttpRequest(
            headers={"x-ext-authz": value, "x-a": "b"}
        )
        asked = external_auth_pb2.CheckRequest()
        asked.attributes.request.http.CopyFrom(request)
        said = external_auth_pb2.CheckResponse.FromString(ext_authz.check(asked.SerializeToString()))
        if value == "allow":
            (added,) = said.ok_response.headers
            assert (said.status.code, added.header.value) == (0, "allowed")
        else:
            (added,) = said.denied_response.headers
            assert (said.status.code, said.denied_response.status.code) == (7, 403)
            assert added.header.value == "denied" and said.denied_response.body.startswith(
                "denied by ext_authz"
            )
        assert added.header.key == "x-ext-authz-check-result"


def test_keep_alive_and_both_families(start: Start) -> None:
    port = free_port()
    start("docker.io/mccutchen/go-httpbin:v2.15.0", port, [str(port)])
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        stream = connection.makefile("rb")
        for _ in range(2):
            connection.sendall(
                b"POST /post HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            head = {}
            while line := stream.readline().strip():
                name, _, value = line.partition(b": ")
                head[name] = value
            assert json.loads(stream.read(int(head[b"Content-Length"])))["data"] == "abc"
    assert fetch("::1", port, "/ip", {}, 5) == (200, b'{"origin": "::1"}\n')


def test_tcp_echo(start: Start) -> None:
    ports = [free_port(), free_port()]
    start("registry.istio.io/release/tcp-echo-server:1.3", ports[1], [",".join(map(str, ports)), "hello"])
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"one\ntwo\n")
            stream = connection.makefile("rb")
            assert [stream.readline(), stream.readline()] == [b"hello one\n", b"hello two\n"]
