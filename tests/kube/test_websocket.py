"""The WebSocket client codec against the RFC's examples and a hand-made server."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.kube.websocket import WebSocket, WebSocketError, check_answer


def server_frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    first = (0x80 if final else 0) | opcode
    if len(payload) < 126:
        return struct.pack(">BB", first, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack(">BBH", first, 126, len(payload)) + payload
    return struct.pack(">BBQ", first, 127, len(payload)) + payload


def unmask(frame: bytes) -> tuple[int, bytes]:
    assert frame[1] & 0x80
    length, start = frame[1] & 0x7F, 2
    if length == 126:
        (length,), start = struct.unpack(">H", frame[2:4]), 4
    elif length == 127:
        (length,), start = struct.unpack(">Q", frame[2:10]), 10
    mask, body = frame[start : start + 4], frame[start + 4 :]
    assert len(body) == length
    return frame[0], bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))


def test_the_answer_of_rfc_6455_section_1_3() -> None:
    key, accept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    check_answer(key, "p", {"sec-websocket-accept": accept, "sec-websocket-protocol": "p"})
    with pytest.raises(WebSocketError, match="key"):
        check_answer(key, "p", {"sec-websocket-accept": "x", "sec-websocket-protocol": "p"})
    with pytest.raises(WebSocketError, match="speak"):
        check_answer(key, "p", {"sec-websocket-accept": accept})


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_what_we_send_is_masked_binary(size: int) -> None:
    websocket = WebSocket()
    websocket.send(b"x" * size)
    assert unmask(websocket.output()) == (0x82, b"x" * size)


def test_fragments_pings_and_close() -> None:
    websocket = WebSocket()
    wire = server_frame(2, b"ab", final=False) + server_frame(9, b"hi") + server_frame(0, b"cd")
    assert list(websocket.receive(wire)) == [b"ab", b"cd"]
    assert unmask(websocket.output()) == (0x8A, b"hi")
    assert list(websocket.receive(server_frame(8, struct.pack(">H", 1000) + b"bye"))) == []
    assert websocket.is_closed
    assert unmask(websocket.output()) == (0x88, struct.pack(">H", 1000))


@pytest.mark.parametrize("wire", [b"\xf2\x00", b"\x82\x80\0\0\0\0", b"\x83\x00", b"\x82\x7f" + b"\xff" * 8])
def test_broken_framing_is_an_error(wire: bytes) -> None:
    with pytest.raises(WebSocketError):
        list(WebSocket().receive(wire))


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 40))
def test_any_cut_gives_the_same_bytes(messages: list[bytes], cut: int) -> None:
    websocket = WebSocket()
    wire = b"".join(server_frame(2, message) for message in messages)
    got = [p for start in range(0, len(wire), cut) for p in websocket.receive(wire[start : start + cut])]
    assert got == messages
