import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ambit.local.pods import logs
from ambit.local.pods.shim import logfile
from ambit.local.pods.shim.logfile import LogFile
from ambit.local.streams import LogOptions


async def read(path: Path, options: LogOptions) -> bytes:
    return b"".join([line async for line in logs.read(path, options, lambda: False)])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=50,
    deadline=None,
)
@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 16))
async def test_what_was_written_is_read(tmp_path: Path, chunks: list[bytes], longest: int) -> None:
    path = tmp_path / "0.log"
    path.unlink(missing_ok=True)
    before, logfile.LONGEST_LINE = logfile.LONGEST_LINE, longest
    try:
        log = LogFile(str(path))
        for chunk in chunks:
            log.write("stdout", chunk or b"x")
        log.close()
    finally:
        logfile.LONGEST_LINE = before
    text = b"".join(chunk or b"x" for chunk in chunks)
    assert (await read(path, LogOptions())).rstrip(b"\n") == text.rstrip(b"\n")


async def test_options(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(
        b"2026-01-01T00:00:01.000000000Z stdout F one\n"
        b"2026-01-01T00:00:02.500000000Z stderr P tw\n"
        b"2026-01-01T00:00:02.500000000Z stderr F o\n"
        b"2026-01-01T00:00:03.000000000Z stdout F three\n"
    )
    assert await read(path, LogOptions()) == b"one\ntwo\nthree\n"
    assert await read(path, LogOptions(tail_lines=2)) == b"two\nthree\n"
    assert await read(path, LogOptions(tail_lines=0)) == b""
    assert await read(path, LogOptions(since=1767225602.0)) == b"two\nthree\n"
    assert await read(path, LogOptions(limit_bytes=5)) == b"one\nt"
    assert (
        await read(path, LogOptions(timestamps=True, tail_lines=1))
        == b"2026-01-01T00:00:03.000000000Z three\n"
    )


async def test_rotation_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(str(path))
    line = b"x" * 1000 + b"\n"
    for _ in range(logfile.LIMIT // 1000):
        log.write("stdout", line)
    log.write("stdout", b"last\n")
    log.close()
    rotated = path.with_name(path.name + logfile.ROTATED)
    assert rotated.stat().st_size > logfile.LIMIT > path.stat().st_size
    assert (await read(path, LogOptions())).endswith(line + b"last\n")


async def test_following_ends_with_the_container(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = LogFile(str(path))
    log.write("stdout", b"first\n")
    said = iter([b"more\n", b"more\n", b"last\n"])

    def is_running() -> bool:
        line = next(said, b"")
        if line:
            log.write("stdout", line)
        return line == b"more\n"

    lines = [line async for line in logs.read(path, LogOptions(follow=True), is_running)]
    assert lines == [b"first\n", b"more\n", b"more\n", b"last\n"]


async def test_following_loses_nothing_over_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines come while the former ones are shown, and between the last look and the rotation."""
    monkeypatch.setattr(logfile, "LIMIT", 1000)
    path = tmp_path / "0.log"
    log = LogFile(str(path))
    written = [f"line {number}\n".encode() for number in range(100)]
    waiting = iter(written)

    def write(count: int) -> bool:
        lines = [line for _, line in zip(range(count), waiting, strict=False)]
        for line in lines:
            log.write("stdout", line)
        return bool(lines)

    write(3)
    descriptors = len(os.listdir("/proc/self/fd"))
    shown = []
    async for line in logs.read(path, LogOptions(follow=True), lambda: write(3)):
        shown.append(line)
        if len(shown) == 2:
            write(1)
    assert shown == written
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_rotation_that_fails_goes_on_in_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "LIMIT", 10)
    path = tmp_path / "sub" / "0.log"
    log = LogFile(str(path))
    former = path.with_name("0.log.1")
    former.mkdir()  # nothing can be renamed to it
    log.write("stdout", b"one\n")
    log.write("stdout", b"two\n")
    assert path.read_bytes().count(b"\n") == 2
    former.rmdir()
    log.write("stdout", b"three\n")
    log.write("stdout", b"four\n")
    log.close()
    text = former.read_bytes() + (path.read_bytes() if path.exists() else b"")
    assert b"four" in text
