"""How the node's Envoy is started: its program, files and command line."""

import hashlib
from pathlib import Path

import msgspec


class EnvoySpec(msgspec.Struct, frozen=True):
    """How to start Envoy. `max_drain`: seconds an older generation may keep its connections. `host_proc`: the host's
    /proc, where Envoys of former pods of this node are seen."""

    binary: Path
    bootstrap: Path
    run: Path
    log: Path
    concurrency: int = 1
    max_drain: int = 3600
    drain_time: int = 10
    live_timeout: float = 30.0
    log_level: str = "warning"
    host_proc: Path | None = None

    @property
    def admin(self) -> Path:
        return self.run / "admin.sock"

    def build(self) -> str:
        """Changes when the program or the bootstrap does: a running generation is then handed over."""
        digest = hashlib.blake2b(self.bootstrap.read_bytes(), digest_size=8)
        found = self.binary.stat()
        digest.update(f"{self.binary}:{found.st_size}:{found.st_mtime_ns}".encode())
        return digest.hexdigest()

    def argv(self, epoch: int, base_id: int, concurrency: int) -> list[str]:
        return [
            str(self.binary),
            "-c",
            str(self.bootstrap),
            "--base-id",
            str(base_id),
            "--restart-epoch",
            str(epoch),
            "--socket-path",
            str(self.run / "restart"),
            "--concurrency",
            str(concurrency),
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            str(self.drain_time),
            "--parent-shutdown-time-s",
            str(self.max_drain),
            "--log-level",
            self.log_level,
            # Each access-log message that could not be delivered while the agent is away is an error there.
            "--component-log-level",
            "misc:critical",
        ]
