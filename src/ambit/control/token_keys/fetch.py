"""Fetches keys of tokens by HTTP: bounded in time, size and redirects, and from permitted addresses only.

A name is resolved once, and the connection goes to the address that was judged, or to what stands for it. Names are
resolved in threads of their own, and whoever asks waits until the thread is done, also past the time of the source:
servers of names that never answer must not take the process's threads, nor more of ours than were asked for.
"""

import asyncio
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from ambit import __version__
from ambit.core.address import Address
from ambit.core.errors import AmbitError, Unreachable
from ambit.kube.http import Address as Place
from ambit.kube.http import Response, Transport
from ambit.model.jwks import BadKeys, key_set
from ambit.model.jwt import KeySource

MOST_BYTES = 1 << 20
MOST_PIECES = 1 << 14
"""Of one answer: each costs time, however short it is."""
MOST_REDIRECTS = 3
LONGEST_URL = 4096
MOST_AT_ONCE = 32
_DISCOVERY = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"[!-~]+")
_MAX_AGE = re.compile(r"max-age=([0-9]{1,9})")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": f"ambit/{__version__}",
}


class NotFetched(AmbitError):
    """There are no keys there; the sentence says why."""


class Fetched(msgspec.Struct, frozen=True):
    """`keys` as `ambit.model.jwks` writes them; `lifetime` in seconds, if the server says one."""

    keys: str
    lifetime: int | None = None


class _Attempt:
    """To fetch one source. `lookups` are those of names; `is_hidden` once a server was dialled whose answers the object
    may not show."""

    def __init__(self, source: KeySource) -> None:
        self.source = source
        self.lookups: list[asyncio.Future[list[tuple[Any, ...]]]] = []
        self.is_hidden = False


class _Answer(msgspec.Struct, frozen=True):
    body: bytes
    headers: Mapping[str, str]


def _as_it_is(_: str, address: Address, port: int) -> tuple[Address, int]:
    return address, port


class KeyFetcher:
    """`why_not` returns why an object of a namespace may not have an address of a host dialled; `dialled` where to
    connect for one and a port, if anywhere; `discloses` whether the object may show how the server answers; `tls` is
    for tests."""

    def __init__(
        self,
        why_not: Callable[[str, str, Address], str],
        dialled: Callable[[str, Address, int], tuple[Address, int] | None] = _as_it_is,
        discloses: Callable[[str, str, Address], bool] = lambda *_: True,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._why_not = why_not
        self._dialled = dialled
        self._discloses = discloses
        self._tls = tls or ssl.create_default_context
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "names of key servers")

    async def fetch(self, source: KeySource) -> Fetched:
        """The keys of a source. Raises NotFetched, which does not say more than the object may show."""
        attempt = _Attempt(source)
        try:
            return await self._fetch(attempt)
        except NotFetched as problem:
            if not attempt.is_hidden:
                raise
            raise NotFetched(f"{source.url} is not available") from problem

    async def _fetch(self, attempt: _Attempt) -> Fetched:
        source = attempt.source
        try:
            async with asyncio.timeout(source.timeout / 1000):
                url = await self._discover(source.url, attempt) if source.is_issuer else source.url
                answer = await self._get(url, attempt)
        except TimeoutError as error:
            if attempt.lookups:
                await asyncio.wait(attempt.lookups)
            raise NotFetched(f"{source.url} did not answer within {source.timeout} ms") from error
        except Unreachable as error:
            raise NotFetched(error.message) from error
        try:
            keys = key_set(answer.body)
        except BadKeys as problem:
            raise NotFetched(f"{url} has no keys: {problem}") from problem
        age = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        return Fetched(keys, int(age[1]) if age else None)

    async def _discover(self, issuer: str, attempt: _Attempt) -> str:
        """Where an issuer says that its keys are; it must be the issuer that it says it is (section 4.3)."""
        answer = await self._get(issuer.rstrip("/") + _DISCOVERY, attempt)
        try:
            said = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise NotFetched(f"{issuer} has no OpenID configuration: it is no JSON") from error
        place = said.get("jwks_uri") if isinstance(said, dict) else None
        if not isinstance(place, str) or said.get("issuer") != issuer:
            raise NotFetched(f"{issuer} has no OpenID configuration with jwks_uri and this very issuer")
        if urlsplit(issuer).scheme == "https" and urlsplit(place).scheme != "https":
            raise NotFetched(f"{issuer} names keys that do not come by https")
        return place

    async def _get(self, url: str, attempt: _Attempt) -> _Answer:
        first = _split(url)
        for _ in range(MOST_REDIRECTS + 1):
            parts = _split(url)
            if parts.hostname != first.hostname or (first.scheme, parts.scheme) == ("https", "http"):
                raise NotFetched(
                    f"{first.geturl()} leads to another place, {parts.scheme}://{parts.hostname}"
                )
            async with await self._request(parts, attempt) as response:
                if response.status == 200:
                    return _Answer(await _body(response, url), response.headers)
                if response.status not in _REDIRECTS:
                    raise NotFetched(f"{url} answers with {response.status}")
                url = _join(url, response.headers.get("location", ""))
        raise NotFetched(f"{first.geturl()} leads from place to place")

    async def _request(self, parts: SplitResult, attempt: _Attempt) -> Response:
        host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
        place = self._dialled(host, await self._address(host, port, attempt), port)
        if place is None:
            raise NotFetched(f"{host} has no pod for port {port}")
        tls = await asyncio.to_thread(self._tls) if parts.scheme == "https" else None
        transport = Transport(
            Place(str(place[0]), place[1]), tls, host, parts.netloc, name=f"{parts.scheme}://{parts.netloc}"
        )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return await transport.request("GET", target, _HEADERS)

    async def _address(self, host: str, port: int, attempt: _Attempt) -> Address:
        """The first one of the host that may be asked."""
        look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, look)
        attempt.lookups.append(lookup)
        try:
            found = await asyncio.shield(lookup)
        except (OSError, UnicodeError) as error:
            raise NotFetched(f"{host} has no address") from error
        addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        namespace = attempt.source.namespace
        reasons = {address: self._why_not(namespace, host, address) for address in addresses}
        for address, reason in reasons.items():
            if not reason:
                attempt.is_hidden |= not self._discloses(namespace, host, address)
                return address
        raise NotFetched(next(iter(reasons.values()), f"{host} has no address"))


def _split(url: str) -> SplitResult:
    if len(url) > LONGEST_URL:
        raise NotFetched(f"an address of more than {LONGEST_URL} characters is not asked")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise NotFetched(f"{url!r} is no address of a web server") from error
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or not _URL.fullmatch(url):
        raise NotFetched(f"{url!r} is no address of a web server")
    return parts


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise NotFetched(f"{url} leads to {location[:200]!r}, which is no address") from error


async def _body(response: Response, url: str) -> bytes:
    pieces, size = [], 0
    async for piece in response.chunks():
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise NotFetched(f"{url} answers with more than {MOST_BYTES} bytes")
        if len(pieces) > MOST_PIECES:
            raise NotFetched(f"{url} answers in more than {MOST_PIECES} pieces")
    return b"".join(pieces)
