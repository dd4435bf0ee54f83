"""What is kept beside Envoy's sockets: which generations run, for the next agent; and tidying up after dead ones."""

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from ambit.agent.supervise.generation import Generation
from ambit.daemon import process_id

_log = logging.getLogger("ambit.envoy")


class Record(msgspec.Struct, frozen=True):
    """The generations that run."""

    current: Generation | None = None
    older: Generation | None = None
    boot: str = ""
    """Of the machine: process numbers mean nothing after the next one. Empty in records that are older."""


def read(file: Path) -> Record:
    """What was written last; an empty record when there is none, or the machine was started anew since."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return Record()
    return found if found.boot in ("", process_id.boot_id()) else Record()


def write(file: Path, record: Record) -> None:
    """Replaces the record. A failure is logged: the next agent then starts a new Envoy."""
    temporary = file.with_suffix(".new")
    try:
        boot = process_id.boot_id()
        temporary.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, boot=boot)))
        temporary.replace(file)
    except OSError as problem:
        _log.error("cannot note which Envoy runs in %s: %s", file, problem.strerror)


def sweep(run: Path, keep: Generation | None) -> None:
    """Removes hot-restart sockets and shared memory that crashed generations left behind."""
    kept = f"_{keep.base_id * 10}" if keep is not None else None
    for path in run.glob("restart_*"):
        if kept is not None and kept[:-1] in path.name:
            continue
        base = path.name.rpartition("_")[2][:-1]
        path.unlink(missing_ok=True)
        if base.isdigit():
            with contextlib.suppress(OSError):
                os.unlink(f"/dev/shm/envoy_shared_memory_{base}0")  # noqa: S108 - Envoy's own name
