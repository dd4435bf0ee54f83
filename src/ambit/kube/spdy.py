"""SPDY/3.1 frames for both ends of a connection, without I/O: what kubectl's exec and port-forward speak.

1. Bytes may arrive in any cut; events come out in order.
2. All header blocks of one direction share one compression state, so every block must be decoded, wanted or not.
3. No flow control: the implementations in use (client-go, kubelet) neither send window updates nor wait for them.
4. A peer that breaks the framing raises `SpdyError`; the connection cannot go on after that.

Frame layouts: "SPDY Protocol - Draft 3.1", section 2. Integers are big-endian.
"""

import enum
import struct
import zlib
from collections.abc import Iterator, Mapping

import msgspec

MAX_FRAME = 4 * 1024 * 1024
"""Bytes of one frame we accept; the format would allow 16 MiB."""
MAX_HEADERS = 64 * 1024
"""Bytes of one decompressed header block."""
DATA_CHUNK = 32 * 1024
"""Bytes per data frame we send."""

_WORDS = """
options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|
authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|
content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|
if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|
proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|
user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|
keep-alive|origin
"""
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(w)) + w.encode() for w in _WORDS.replace("\n", "").split("|"))
    + _TAIL.encode()
)
"""The preset compression dictionary of section 2.6.10.1."""


class _Kind(enum.IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    PING = 6
    GOAWAY = 7
    HEADERS = 8


_FIN = 0x01
_CONTROL = 0x80000000
_VERSION = 3


class SpdyError(ValueError):
    """The peer sent what is no SPDY/3.1."""


class StreamOpened(msgspec.Struct, frozen=True):
    """The peer opened a stream; `finished` if it will send nothing on it."""

    stream: int
    headers: dict[str, str]
    finished: bool


class StreamReplied(msgspec.Struct, frozen=True):
    """The peer accepted our stream."""

    stream: int
    headers: dict[str, str]
    finished: bool


class Data(msgspec.Struct, frozen=True):
    """Bytes of a stream; `finished` if they are the last ones from the peer."""

    stream: int
    data: bytes
    finished: bool


class Reset(msgspec.Struct, frozen=True):
    """The peer gave a stream up, with an RST_STREAM status code."""

    stream: int
    status: int


class GoAway(msgspec.Struct, frozen=True):
    """The peer opens no more streams and accepts none after `last`."""

    last: int


Event = StreamOpened | StreamReplied | Data | Reset | GoAway

CANCEL = 5
REFUSED = 3


class Session:
    """One end of a connection. Methods that send return nothing: fetch the bytes with `output()`."""

    def __init__(self, *, client: bool) -> None:
        self._next_stream = 1 if client else 2
        self._input = bytearray()
        self._output = bytearray()
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def output(self) -> bytes:
        """The bytes to send now; empties the buffer."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def open_stream(self, headers: Mapping[str, str], *, finished: bool = False) -> int:
        """Open a stream and return its number."""
        stream = self._next_stream
        self._next_stream += 2
        body = struct.pack(">IIH", stream, 0, 0) + self._compress(headers)
        self._control(_Kind.SYN_STREAM, body, _FIN if finished else 0)
        return stream

    def reply(self, stream: int, headers: Mapping[str, str] | None = None, *, finished: bool = False) -> None:
        """Accept a stream that the peer opened."""
        body = struct.pack(">I", stream) + self._compress(headers or {})
        self._control(_Kind.SYN_REPLY, body, _FIN if finished else 0)

    def send(self, stream: int, data: bytes, *, finished: bool = False) -> None:
        """Send bytes on a stream; with `finished` they are the last."""
        view = memoryview(data)
        for start in range(0, len(data), DATA_CHUNK):
            part = view[start : start + DATA_CHUNK]
            last = finished and start + DATA_CHUNK >= len(data)
            self._output += struct.pack(">II", stream, (_FIN if last else 0) << 24 | len(part))
            self._output += part
        if finished and not data:
            self._output += struct.pack(">II", stream, _FIN << 24)

    def reset(self, stream: int, status: int = CANCEL) -> None:
        """Give a stream up."""
        self._control(_Kind.RST_STREAM, struct.pack(">II", stream, status))

    def go_away(self, last: int = 0) -> None:
        """Announce the end of the connection."""
        self._control(_Kind.GOAWAY, struct.pack(">II", last, 0))

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes from the peer. Pings are answered here. Raises `SpdyError`."""
        self._input += data
        while len(self._input) >= 8:
            first, second = struct.unpack_from(">II", self._input)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > MAX_FRAME:
                raise SpdyError(f"a frame of {length} bytes is more than we accept")
            if len(self._input) < 8 + length:
                return
            body = bytes(memoryview(self._input)[8 : 8 + length])
            del self._input[: 8 + length]
            if first & _CONTROL:
                if first >> 16 & 0x7FFF != _VERSION:
                    raise SpdyError(f"SPDY version {first >> 16 & 0x7FFF} instead of 3")
                event = self._read_control(first & 0xFFFF, bool(flags & _FIN), body)
                if event is not None:
                    yield event
            else:
                yield Data(first, body, bool(flags & _FIN))

    def _read_control(self, kind: int, finished: bool, body: bytes) -> Event | None:
        try:
            match kind:
                case _Kind.SYN_STREAM:
                    (stream,) = struct.unpack_from(">I", body)
                    return StreamOpened(stream & 0x7FFFFFFF, self._decompress(body[10:]), finished)
                case _Kind.SYN_REPLY:
                    (stream,) = struct.unpack_from(">I", body)
                    return StreamReplied(stream & 0x7FFFFFFF, self._decompress(body[4:]), finished)
                case _Kind.RST_STREAM:
                    stream, status = struct.unpack(">II", body)
                    return Reset(stream & 0x7FFFFFFF, status)
                case _Kind.PING:
                    (number,) = struct.unpack(">I", body)
                    # The parity of a ping's number says who sent it; our own answers are not answered again.
                    if number % 2 != self._next_stream % 2:
                        self._control(_Kind.PING, body)
                    return None
                case _Kind.GOAWAY:
                    (last,) = struct.unpack_from(">I", body)
                    return GoAway(last & 0x7FFFFFFF)
                case _Kind.HEADERS:
                    self._decompress(body[4:])
                    return None
                case _:
                    return None
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"malformed control frame of type {kind}: {error}") from error

    def _control(self, kind: int, body: bytes, flags: int = 0) -> None:
        self._output += struct.pack(">II", _CONTROL | _VERSION << 16 | kind, flags << 24 | len(body)) + body

    def _compress(self, headers: Mapping[str, str]) -> bytes:
        block = bytearray(struct.pack(">I", len(headers)))
        for name, value in headers.items():
            for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
                block += struct.pack(">I", len(text)) + text
        return self._deflate.compress(bytes(block)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _decompress(self, data: bytes) -> dict[str, str]:
        block = self._inflate.decompress(data, MAX_HEADERS)
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"a header block is larger than {MAX_HEADERS} bytes")
        (count,) = struct.unpack_from(">I", block)
        if count > MAX_HEADERS // 8:
            raise SpdyError(f"{count} headers in one block")
        position = 4
        texts: list[str] = []
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", block, position)
            position += 4
            if position + length > len(block):
                raise SpdyError("a header ends after its block")
            texts.append(block[position : position + length].decode("latin-1"))
            position += length
        return dict(zip(texts[::2], texts[1::2], strict=True))
