"""SPDY frames: both ends against each other, and against bytes made by hand from the specification."""

import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.kube.spdy import (
    DICTIONARY,
    Data,
    GoAway,
    Reset,
    Session,
    SpdyError,
    StreamOpened,
    StreamReplied,
)


def test_the_dictionary_is_the_specifications() -> None:
    """Its Adler-32 is the DICTID that every SPDY/3 zlib stream begins with."""
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_a_stream_lives_and_dies() -> None:
    client, server = Session(client=True), Session(client=False)
    stream = client.open_stream({"streamType": "data", "port": "80"})
    assert list(server.receive(client.output())) == [
        StreamOpened(1, {"streamtype": "data", "port": "80"}, False)
    ]
    server.reply(stream, {"x": "y"})
    server.send(stream, b"hello")
    server.send(stream, b"", finished=True)
    assert list(client.receive(server.output())) == [
        StreamReplied(1, {"x": "y"}, False),
        Data(1, b"hello", False),
        Data(1, b"", True),
    ]
    client.reset(stream, 5)
    client.go_away(7)
    assert list(server.receive(client.output())) == [Reset(1, 5), GoAway(7)]
    assert client.open_stream({}, finished=True) == 3
    assert list(server.receive(client.output())) == [StreamOpened(3, {}, True)]


def test_the_layout_of_frames() -> None:
    session = Session(client=True)
    session.send(5, b"abc", finished=True)
    assert session.output() == bytes.fromhex("00000005 01000003") + b"abc"
    session.reset(5, 3)
    assert session.output() == bytes.fromhex("80030003 00000008 00000005 00000003")
    session.open_stream({"a": "b"})
    frame = session.output()
    assert frame[:4] == bytes.fromhex("80030001")
    assert frame[8:18] == bytes.fromhex("00000001 00000000 0000")
    block = zlib.decompressobj(zdict=DICTIONARY).decompress(frame[18:])
    assert block == bytes.fromhex("00000001 00000001") + b"a" + bytes.fromhex("00000001") + b"b"


def test_pings_are_answered_but_not_answers() -> None:
    server = Session(client=False)
    ping = bytes.fromhex("80030006 00000004 00000001")
    assert list(server.receive(ping)) == []
    assert server.output() == ping
    assert list(server.receive(bytes.fromhex("80030006 00000004 00000002"))) == []
    assert server.output() == b""


def test_unknown_control_frames_are_skipped() -> None:
    server = Session(client=False)
    settings = bytes.fromhex("80030004 00000004 00000000")
    window = bytes.fromhex("80030009 00000008 00000001 00001000")
    assert list(server.receive(settings + window)) == []


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("80020001 00000000"),
        bytes.fromhex("80030001 00000002 0000"),
        bytes.fromhex("80030003 00000001 00"),
        bytes.fromhex("00000001 00ffffff"),
        bytes.fromhex("80030002 00000008 00000001 deadbeef"),
    ],
)
def test_broken_framing_is_an_error(data: bytes) -> None:
    with pytest.raises(SpdyError):
        list(Session(client=False).receive(data))


def test_a_header_bomb_is_refused() -> None:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    block = deflate.compress(struct.pack(">II", 1, 10_000_000) + bytes(10_000_000))
    block += deflate.flush(zlib.Z_SYNC_FLUSH)
    frame = struct.pack(">III", 0x80030002, 4 + len(block), 1) + block
    with pytest.raises(SpdyError, match="larger than"):
        list(Session(client=True).receive(frame))


@given(st.binary(max_size=200))
def test_any_bytes_give_events_or_an_error(data: bytes) -> None:
    with suppress(SpdyError):
        list(Session(client=False).receive(data))


headers = st.dictionaries(
    st.text("abc-", min_size=1, max_size=5), st.text(st.characters(max_codepoint=255), max_size=9), max_size=4
)


@given(st.lists(st.tuples(headers, st.binary(max_size=70_000)), max_size=4), st.integers(1, 999))
def test_any_cut_gives_the_same_events(streams: list[tuple[dict[str, str], bytes]], cut: int) -> None:
    """Rules 1 and 2."""
    client, server = Session(client=True), Session(client=False)
    for fields, body in streams:
        client.send(client.open_stream(fields), body, finished=True)
    wire = client.output()
    opened: list[dict[str, str]] = []
    bodies: dict[int, bytes] = {}
    for start in range(0, len(wire), cut):
        for event in server.receive(wire[start : start + cut]):
            match event:
                case StreamOpened(_, fields, _):
                    opened.append(fields)
                case Data(stream, data, _):
                    bodies[stream] = bodies.get(stream, b"") + data
                case _:
                    raise AssertionError(event)
    assert opened == [fields for fields, _ in streams]
    assert list(bodies.values()) == [body for _, body in streams]
