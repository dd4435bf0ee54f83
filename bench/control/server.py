"""The control planes that can be put under the load: started, killed, and asked what they use."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from bench.instance import repository
from bench.ports import free_port

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 300.0
LOOK_AGAIN = 0.01


class Usage(msgspec.Struct, frozen=True):
    """Processor seconds since the start; resident memory now and at most, in MiB."""

    cpu: float
    resident: float
    peak: float


def usage(pid: int) -> Usage:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())

    def mebibytes(name: str) -> float:
        return int(status[name].split()[0]) / 1024

    return Usage((int(stat[11]) + int(stat[12])) / TICKS, mebibytes("VmRSS"), mebibytes("VmHWM"))


class ControlPlane:
    """A process that `command` starts; it is ready when HTTP `GET ready_path` on `debug_port` says so."""

    def __init__(
        self, command: list[str], environment: dict[str, str], debug_port: int, ready_path: str, log: Path
    ) -> None:
        self._command = command
        self._environment = environment
        self._debug_port = debug_port
        self._ready_path = ready_path
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def launch(self) -> float:
        """When it was started; does not wait for it."""
        with self._log.open("ab") as log:
            began = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=os.environ | self._environment,
                cwd=repository(),
                stdout=log,
                stderr=log,
            )
        return began

    async def ready(self) -> float:
        """When it said so. Raises RuntimeError when it ended, TimeoutError."""
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                if self._process is None or self._process.returncode is not None:
                    raise RuntimeError(f"the control plane ended; {self._log.read_text()[-2000:]}")
                await asyncio.sleep(LOOK_AGAIN)
        return time.monotonic()

    def usage(self) -> Usage:
        assert self._process is not None, "it was launched"
        return usage(self._process.pid)

    def pause(self) -> None:
        """It stands still, as with SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._debug_port)
        except OSError:
            return False
        try:
            writer.write(f"GET {self._ready_path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()


def ambit(kubeconfig: Path, port: int, log: Path) -> ControlPlane:
    """Ours, from this repository."""
    debug = free_port()
    command = [
        *(sys.executable, "-m", "ambit", "control", "run", "--log-level", "error"),
        *("--kubeconfig", str(kubeconfig), "--port", str(port)),
        *("--plain-port", str(free_port()), "--debug-port", str(debug)),
    ]
    environment = {"PYTHONPATH": str(repository() / "src")}
    return ControlPlane(command, environment, debug, "/healthz/ready", log)


def istiod(program: Path, kubeconfig: Path, port: int, log: Path, *, tuned: bool) -> ControlPlane:
    """Istio's, outside of the cluster; `tuned` takes its two waits away: the debounce and the limit of new streams."""
    ready, mesh = free_port(), log.with_suffix(".mesh.yaml")
    mesh.write_text(
        "trustDomain: cluster.local\nrootNamespace: istio-system\n"
        'defaultConfig: {proxyMetadata: {ISTIO_META_ENABLE_HBONE: "true"}}\n'
    )
    environment = {
        "POD_NAME": "istiod-0",
        "POD_NAMESPACE": "istio-system",
        "SERVICE_ACCOUNT": "istiod",
        "REVISION": "default",
        "CLUSTER_ID": "Kubernetes",
        "PILOT_ENABLE_AMBIENT": "true",
        "CA_TRUSTED_NODE_ACCOUNTS": "istio-system/ztunnel",
        "PILOT_ENABLE_ANALYSIS": "false",
    }
    if tuned:
        environment |= {"PILOT_DEBOUNCE_AFTER": "1ms", "PILOT_MAX_REQUESTS_PER_SECOND": "1000"}
    command = [
        *(str(program), "discovery", "--kubeconfig", str(kubeconfig), "--meshConfig", str(mesh)),
        *("--clusterID", "Kubernetes", "--secureGRPCAddr", f"127.0.0.1:{port}", "--grpcAddr", ""),
        *("--httpAddr", f"127.0.0.1:{ready}", "--httpsAddr", f"127.0.0.1:{free_port()}"),
        *("--monitoringAddr", f"127.0.0.1:{free_port()}", "--ctrlz_port", "0"),
    ]
    return ControlPlane(command, environment, ready, "/ready", log)
