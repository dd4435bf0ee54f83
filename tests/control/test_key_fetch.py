"""Fetching keys from servers of every kind."""

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.control.token_keys.fetch import LONGEST_URL, MOST_BYTES, Fetched, KeyFetcher, NotFetched
from ambit.control.token_keys.own_address import is_own_address
from ambit.core.address import Address
from ambit.model.jwks import key_set
from ambit.model.jwt import KeySource
from tests.node.world import until
from tests.tokens import Issuer

KEYS = Issuer(algorithm="ES256").jwks
GOOD = key_set(KEYS)


def answer(body: str, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


class Server:
    """Answers by path; a function is given the writer. `seen` are the heads of all requests."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[asyncio.StreamWriter], object]] = {}
        self.seen: list[str] = []
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.seen.append(head)
            found = self.answers.get(head.split()[1], answer("", status="404 Not Found"))
            if callable(found):
                await found(writer)  # type: ignore[misc]
            else:
                writer.write(found)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def url(self, path: str = "/keys", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    made = Server()
    server = await asyncio.start_server(made, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


def anywhere(*_: object) -> str:
    return ""


patient = partial(KeySource, timeout=60_000)


async def fetch(url: str, *, is_issuer: bool = False, timeout: int = 60_000) -> Fetched:
    return await KeyFetcher(anywhere).fetch(KeySource(url, is_issuer, timeout))


async def refused(url: str, *, is_issuer: bool = False, timeout: int = 60_000) -> str:
    with pytest.raises(NotFetched) as caught:
        await fetch(url, is_issuer=is_issuer, timeout=timeout)
    return caught.value.message


async def test_keys(server: Server) -> None:
    server.answers["/keys?a=b"] = answer(KEYS, "cache-control: public, max-age=90")
    assert await fetch(server.url("/keys?a=b#c")) == Fetched(GOOD, 90)
    assert f"host: 127.0.0.1:{server.port}" in server.seen[0].lower()
    chunked = f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{len(KEYS):x}\r\n{KEYS}\r\n0\r\n\r\n"
    server.answers["/chunked"] = chunked.encode()
    assert await fetch(server.url("/chunked")) == Fetched(GOOD)


async def test_a_name_is_resolved_once_and_judged(server: Server) -> None:
    server.answers["/keys"] = answer(KEYS)
    judged: list[tuple[str, Address]] = []

    def why_not(_: str, host: str, address: Address) -> str:
        judged.append((host, address))
        return "" if address.version == 4 else "not this one"

    assert await KeyFetcher(why_not).fetch(patient(server.url(host="localhost"))) == Fetched(GOOD)
    assert ("localhost", ipaddress.ip_address("127.0.0.1")) in judged
    assert f"host: localhost:{server.port}" in server.seen[0].lower()
    with pytest.raises(NotFetched, match="never asked"):
        await KeyFetcher(lambda *_: "never asked").fetch(patient(server.url()))
    assert len(server.seen) == 1


@pytest.mark.parametrize("path", ["/nothing", "/no-keys", "/keys?slow"])
async def test_what_a_hidden_server_answers_is_not_shown(server: Server, path: str) -> None:
    server.answers["/no-keys"] = answer("{}")
    server.answers["/keys?slow"] = lambda _: asyncio.sleep(5)
    place = server.url(path)
    fetcher = KeyFetcher(anywhere, discloses=lambda namespace, *_: namespace == "auth")
    for namespace, is_shown in (("auth", True), ("shop", False)):
        with pytest.raises(NotFetched) as caught:
            await fetcher.fetch(KeySource(place, timeout=500, namespace=namespace))
        assert (caught.value.message == f"{place} is not available") is not is_shown


def test_addresses_of_this_machine() -> None:
    assert is_own_address(ipaddress.ip_address("127.0.0.1"))
    assert not is_own_address(ipaddress.ip_address("192.0.2.1"))


async def test_what_stands_for_an_address_is_dialled(server: Server) -> None:
    server.answers["/keys"] = answer(KEYS)
    place = (ipaddress.ip_address("127.0.0.1"), server.port)
    source = patient("http://192.0.2.1:81/keys")
    assert await KeyFetcher(anywhere, lambda *_: place).fetch(source) == Fetched(GOOD)
    assert "host: 192.0.2.1:81" in server.seen[0].lower()
    with pytest.raises(NotFetched, match="has no pod for port 81"):
        await KeyFetcher(anywhere, lambda *_: None).fetch(source)


async def test_discovery(server: Server) -> None:
    issuer = server.url("/realm/")
    place = "/realm/.well-known/openid-configuration"
    server.answers["/keys"] = answer(KEYS)
    server.answers[place] = answer(json.dumps({"issuer": issuer, "jwks_uri": server.url()}))
    assert await fetch(issuer, is_issuer=True) == Fetched(GOOD)
    for said in (
        {"jwks_uri": server.url()},
        {"issuer": "x", "jwks_uri": server.url()},
        {"issuer": issuer},
        [],
    ):
        server.answers[place] = answer(json.dumps(said))
        assert "no OpenID configuration" in await refused(issuer, is_issuer=True)
    server.answers[place] = answer("{")
    assert "no JSON" in await refused(issuer, is_issuer=True)


async def test_redirects_stay_at_their_host(server: Server) -> None:
    def to(place: str) -> bytes:
        return answer("", f"location: {place}", status="302 Found")

    server.answers |= {"/keys": answer(KEYS), "/a": to("/keys"), "/b": to("/a"), "/loop": to("/loop")}
    assert await fetch(server.url("/b")) == Fetched(GOOD)
    assert "place to place" in await refused(server.url("/loop"))
    for elsewhere in ("http://127.0.0.2/keys", "ftp://127.0.0.1/", "//localhost/keys", "http://[::1"):
        server.answers["/a"] = to(elsewhere)
        assert await refused(server.url("/a"))


async def test_what_is_no_answer(server: Server) -> None:
    server.answers |= {
        "/empty": answer(""),
        "/secret": answer('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
        "/garbage": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "/cut": answer(KEYS)[:-10],
        "/wrong": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    }
    for path in (*server.answers, "/none"):
        assert await refused(server.url(path)), path
    assert "404" in await refused(server.url("/none"))


async def test_too_much(server: Server) -> None:
    server.answers["/long"] = answer("a" * (MOST_BYTES + 1))
    assert "more than" in await refused(server.url("/long"))
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffff\r\n")
        while True:
            writer.write(b"a" * 65536)
            await writer.drain()
            sent += 65536

    server.answers["/chunk"] = endless
    assert "more than" in await refused(server.url("/chunk"))
    assert sent < 64 * MOST_BYTES
    server.answers["/head"] = b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000
    assert await refused(server.url("/head"))


@pytest.mark.parametrize(
    ("begin", "again", "said"),
    [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\na\r\n", "pieces"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n", "trailers"),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n", "interim"),
    ],
)
async def test_too_many(server: Server, begin: str, again: str, said: str) -> None:
    """However short they are: whoever is slow to read them is slow for everybody."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(begin.encode())
        while True:
            writer.write(again.encode() * 1000)
            await writer.drain()

    server.answers["/keys"] = endless
    assert said in await refused(server.url())


async def test_what_is_said_of_an_answer_is_short(server: Server) -> None:
    """It is written into a status and a log."""
    for place in (f"/{'a' * LONGEST_URL}", f"http://{'a' * 60_000}/", f"http://[{'a' * 60_000}"):
        server.answers["/keys"] = answer("", f"location: {place}", status="302 Found")
        assert len(await refused(server.url())) < 400


async def test_names_that_take_long_take_threads_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever asked for them waits, so that no more are looked for than may be at once."""
    goes_on = threading.Event()
    where: list[str] = []

    def never(*_: object, **__: object) -> list[object]:
        where.append(threading.current_thread().name)
        goes_on.wait(120)
        raise OSError

    monkeypatch.setattr("ambit.control.token_keys.fetch.socket.getaddrinfo", never)
    fetcher = KeyFetcher(anywhere)
    asking = asyncio.create_task(fetcher.fetch(KeySource("http://slow.example/", timeout=1)))
    await until(lambda: bool(where))
    done, _ = await asyncio.wait([asking], timeout=0.2)
    assert not done
    assert where[0].startswith("names of key servers")
    goes_on.set()
    with pytest.raises(NotFetched, match="within 1 ms"):
        await asking


async def test_too_slow(server: Server) -> None:
    async def drop_by_drop(writer: asyncio.StreamWriter) -> None:
        for byte in answer(KEYS):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)

    server.answers["/keys"] = drop_by_drop
    assert "within 200 ms" in await refused(server.url(), timeout=200)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "http://",
        "http://a.example:99999/",
        "http://me@127.0.0.1/",
        "http://nobody.invalid/",
    ],
)
async def test_what_is_no_place(url: str) -> None:
    assert await refused(url, timeout=5_000)


async def test_servers_prove_who_they_are(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(tmp_path, "localhost")
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serving(context) as server:
        server.answers["/keys"] = answer(KEYS)
        url = server.url(scheme="https", host="localhost")
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(url)
        trusting = KeyFetcher(anywhere, tls=lambda: ssl.create_default_context(cafile=tmp_path / "cert.pem"))
        assert await trusting.fetch(patient(url)) == Fetched(GOOD)
        with pytest.raises(NotFetched, match="CERTIFICATE_VERIFY_FAILED"):
            await trusting.fetch(patient(server.url(scheme="https")))
        server.answers["/down"] = answer("", f"location: http://localhost:{server.port}/keys", status="301 x")
        with pytest.raises(NotFetched, match="another place"):
            await trusting.fetch(patient(server.url("/down", scheme="https", host="localhost")))


def certificate(directory: Path, host: str) -> None:
    """`cert.pem` and `key.pem`, which nobody signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
