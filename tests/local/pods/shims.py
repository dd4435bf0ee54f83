"""Scenarios with one sandbox and no cluster around it."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from ambit.core.errors import AmbitError
from ambit.local.pods import sandbox
from ambit.local.pods.content import File
from ambit.local.pods.ids import maps_users, user_base
from ambit.local.pods.sandbox import Owner, ShimClient
from ambit.local.pods.shim.protocol import Container, ContainerState, Mount, Process
from ambit.local.pods.volumes import PodVolumes, write_atomically
from tests.local.pods.inside import command, eventually

DIRECTORY = Path("/run/ambit/sandboxes/web-0")
NETNS = "/run/ambit/netns/web-0"

PROBE = r"""
import json, os, signal, socket, sys
state, outside = sys.argv[1], int(sys.argv[2])
def attempt(action):
    try:
        return str(action())
    except OSError as problem:
        return type(problem).__name__
def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return "connected"
print(json.dumps({
    "key": attempt(lambda: open(state + "/pki/ca.key").read()),
    "state": attempt(lambda: os.listdir(state)),
    "admin": attempt(lambda: connect("/run/ambit/nodes/node1/admin.sock")),
    "abstract": attempt(lambda: connect("\0ambit-test")),
    "run": sorted(os.listdir("/run")),
    "home": sorted(set(os.listdir("/home")) | set(os.listdir("/var/tmp"))),
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "signal": attempt(lambda: os.kill(outside, signal.SIGKILL)),
    "kill first": attempt(lambda: os.kill(1, signal.SIGKILL)),
    "first's root": attempt(lambda: os.listdir("/proc/1/root")),
    "first's memory": attempt(lambda: open("/proc/1/mem", "rb")),
    "write": attempt(lambda: open("/etc/new", "w")),
    "write usr": attempt(lambda: open("/usr/new", "w")),
    "sysctl": attempt(lambda: open("/proc/sys/kernel/hostname", "w").write("x")),
    "shadow": attempt(lambda: open("/etc/shadow").read()),
    "roots": attempt(lambda: open("/opt/roots").read()),
    "everyones": attempt(lambda: open("/opt/everyones").read()),
    "owner": [os.getuid(), os.stat("/root").st_uid, os.stat("/etc/made/for/this/key").st_uid],
    "own home": attempt(lambda: open("/root/new", "w").write("x")),
    "standard output": attempt(lambda: open("/dev/stdout", "w").write("")),
    "tmp": attempt(lambda: open("/tmp/new", "w").write("x")),
    "mount": attempt(lambda: __import__("ctypes").CDLL(None).umount2(b"/tmp", 2)),
    "remount": os.system("unshare -Urm mount -o remount,rw,bind /usr 2>/dev/null"),
    "uncover": os.system("unshare -Urm umount /home 2>/dev/null"),
    "device": attempt(lambda: os.mknod("/tmp/disk", 0o060600, os.makedev(8, 0))),
    "capabilities": [l.split()[1] for l in open("/proc/self/status") if l.startswith(("CapPrm", "CapEff", "CapBnd"))],
    "privileges": [l.split()[1] for l in open("/proc/self/status") if l.startswith("NoNewPrivs")],
    "volume": attempt(lambda: open("/etc/made/for/this/key").read()),
    "hostname": socket.gethostname(),
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "low port": attempt(lambda: socket.create_server(("127.0.0.1", 80)).close()),
    "python": __import__("ambit").__file__,
}))
"""


def process(*argv: str) -> Process:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return {
        "argv": list(argv),
        "environment": environment,
        "directory": "/",
        "user": None,
        "group": None,
        "groups": [],
    }


def container(
    state: Path,
    name: str,
    *argv: str,
    attempt: int = 0,
    privileged: bool = False,
    mounts: list[Mount] | None = None,
) -> Container:
    return {
        "name": name,
        "attempt": attempt,
        "started": time.time(),
        "process": process(*argv),
        "privileged": privileged,
        "mounts": mounts or [],
        "log": str(state / "logs" / name / f"{attempt}.log"),
    }


async def launch(state: Path, *, host_pids: bool = False) -> ShimClient:
    if not Path(NETNS).exists():
        Path(NETNS).touch()
        command("unshare", "--net", "mount", "--bind", "/proc/self/ns/net", NETNS)
    hidden, readable = sandbox.private_view(state)
    owner = Owner("default", "web-0", "uid", "node1", 0, 0)
    return await sandbox.launch(
        DIRECTORY,
        {
            "socket": str(DIRECTORY / "shim.sock"),
            "staging": str(DIRECTORY / "root"),
            "netns": NETNS,
            "hostname": "web-0",
            "host_pids": host_pids,
            "host_network": False,
            "hidden": hidden,
            "readable": readable,
            "user_base": user_base("uid"),
        },
        owner,
    )


async def ended(shim: ShimClient, name: str) -> ContainerState:
    async with aclosing(shim.watch()) as changes:
        async for states in changes:
            for state in states:
                if state["name"] == name and state["finished"] is not None:
                    return state
    raise AssertionError("the shim ended")


def log_of(state: Path, name: str, attempt: int = 0) -> str:
    lines = (state / "logs" / name / f"{attempt}.log").read_text().splitlines()
    return "\n".join(line.split(" ", 3)[3] for line in lines)


async def isolation(state: Path) -> None:
    """What a pod sees and may do."""
    (state / "pki").mkdir()
    (state / "pki" / "ca.key").write_text("private")
    files = {"key": File(b"from the volume", 0o600)}
    write_atomically(DIRECTORY / "volumes" / "v", files, user_base("uid"))
    command("mount", "-t", "tmpfs", "tmpfs", "/opt")
    for name, mode in (("roots", 0o600), ("everyones", 0o644)):
        Path("/opt", name).write_text(name)
        Path("/opt", name).chmod(mode)
    listeners = []
    for address in ("/run/ambit/nodes/node1/admin.sock", "\0ambit-test"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        listeners.append(listener)
    outside = await asyncio.create_subprocess_exec("sleep", "600")
    shim = await launch(state)
    mount: Mount = {
        "source": str(DIRECTORY / "volumes" / "v"),
        "target": "/etc/made/for/this",
        "read_only": True,
    }
    await shim.start(
        container(state, "probe", sys.executable, "-c", PROBE, str(state), str(outside.pid), mounts=[mount])
    )
    assert (await ended(shim, "probe"))["exit_code"] == 0, log_of(state, "probe")
    seen = json.loads(log_of(state, "probe"))
    refused = {
        "FileNotFoundError",
        "PermissionError",
        "ConnectionRefusedError",
        "OSError",
        "ProcessLookupError",
    }
    assert seen["key"] in refused
    assert seen["state"] in refused | {"[]"}
    assert seen["admin"] in refused
    assert seen["abstract"] in refused
    assert seen["run"] == []
    readable = {
        part for path in (__file__, sys.prefix) if path.startswith("/home/") for part in [Path(path).parts[2]]
    }
    assert set(seen["home"]) <= readable
    assert seen["pids"][0] == 1
    assert len(seen["pids"]) == 2
    assert seen["signal"] in refused
    assert Path(f"/proc/{outside.pid}/cmdline").read_bytes().startswith(b"sleep")
    outside.kill()
    assert await outside.wait() == -9
    assert seen["kill first"] in refused | {"None"}
    assert sandbox.is_alive(_owner())
    assert seen["first's root"] in refused
    assert seen["first's memory"] in refused
    assert seen["write"] in refused
    assert seen["write usr"] in refused
    assert seen["sysctl"] in refused
    assert seen["shadow"] in refused | {""}
    # An ordinary user's pods run with that user's rights: a user namespace of one user has no other.
    assert seen["roots"] == ("PermissionError" if maps_users() else "roots")
    assert seen["everyones"] == "everyones"
    assert seen["owner"] == [0, 0, 0]
    assert seen["own home"] == "1"
    assert seen["standard output"] == "0"
    assert seen["tmp"] == "1"
    assert seen["mount"] == "-1"
    assert seen["remount"] != 0
    assert seen["uncover"] != 0
    assert seen["device"] in refused
    assert set(seen["capabilities"]) == {"0000000000000400"}
    assert seen["privileges"] == ["1"]
    assert seen["volume"] == "from the volume"
    assert seen["hostname"] == "web-0"
    assert seen["interfaces"] == ["lo"]
    assert seen["low port"] == "None"
    assert not Path("/etc/made").exists()
    await sandbox.remove(DIRECTORY)
    assert not DIRECTORY.exists()


def _owner() -> Owner:
    owner = sandbox.read_owner(DIRECTORY)
    assert owner is not None
    return owner


async def lifecycle(state: Path) -> None:
    """Exit codes, signals, logs, a second attempt, what may not start, what is left over."""
    shim = await launch(state)
    await shim.start(container(state, "a", "sh", "-c", "echo out; echo err >&2; printf unfinished; exit 7"))
    first = await ended(shim, "a")
    assert (first["exit_code"], first["signal"]) == (7, None)
    lines = (state / "logs" / "a" / "0.log").read_text().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines) == [
        "stderr F err",
        "stdout F out",
        "stdout F unfinished",
    ]
    await shim.start(container(state, "a", "sleep", "1000", attempt=1))
    assert await shim.signal("a", 15)
    second = await ended(shim, "a")
    assert (second["attempt"], second["exit_code"], second["signal"]) == (1, 143, 15)
    assert not await shim.signal("a", 15)
    for argv, reason in ((["/nonexistent"], "no such file"), (["nonexistent"], "not found in $PATH")):
        try:
            await shim.start(container(state, "b", *argv))
        except AmbitError as problem:
            assert reason in problem.message
        else:
            raise AssertionError("started")
    await shim.start(container(state, "c", "sh", "-c", "sleep 4444 & sleep 0.1; exit 0"))
    await ended(shim, "c")
    await _until(lambda: not _running("4444"))
    await sandbox.remove(DIRECTORY)


async def execution(state: Path) -> None:
    """A second program in a container sees its files and processes, and dies with its connection."""
    shim = await launch(state)
    await shim.start(container(state, "a", "sh", "-c", "echo here > /tmp/mark; sleep 1000"))
    read_end, write_end = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    streams = (nothing, write_end, write_end)
    program = process("sh", "-c", "until test -e /tmp/mark; do :; done; cat /tmp/mark; exit 9")
    async with shim.execute("a", program, streams, False) as replies:
        assert json.loads(await replies.readline())["exit_code"] == 9
    assert os.read(read_end, 100) == b"here\n"
    listing = process("sh", "-c", "echo /proc/$$/fd/*")
    async with shim.execute("a", listing, streams, False) as replies:
        assert json.loads(await replies.readline())["exit_code"] == 0
    numbers = [path.rpartition(b"/")[2] for path in os.read(read_end, 1000).split()]
    assert len(numbers) <= 4, f"the three streams and the listing's own, nothing of the shim's: {numbers}"
    async with shim.execute("a", process("sleep", "4242"), streams, False):
        assert _running("4242")
    await _until(lambda: not _running("4242"))
    await sandbox.remove(DIRECTORY)
    assert not _running("1000")


async def privileged(state: Path) -> None:
    """The shape of the node agent: its double-forked child outlives the container, not the pod; later mounts arrive."""
    shim = await launch(state, host_pids=True)
    script = "setsid sleep 4343 & while ! test -e /run/ambit/netns/later; do sleep 0.05; done; echo seen"
    await shim.start(container(state, "a", "sh", "-c", script, privileged=True))
    command("mount", "-t", "tmpfs", "tmpfs", "/run/ambit/netns")
    Path("/run/ambit/netns/later").touch()
    assert (await ended(shim, "a"))["exit_code"] == 0
    await _until(lambda: _running("4343"))  # setsid is not yet sleep, perhaps
    await shim.start(container(state, "a", "sleep", "1000", attempt=1, privileged=True))
    assert _running("4343")
    await sandbox.remove(DIRECTORY)
    await _until(lambda: not _running("4343"))


async def survival(state: Path) -> None:
    """The shim is no child of whoever started it, and answers whoever comes next."""
    shim = await launch(state)
    await shim.start(container(state, "a", "sleep", "1000"))
    owner = _owner()
    status = Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(status[1]) == 1, "reparented to the instance's first process"
    other = ShimClient(str(DIRECTORY / "shim.sock"))
    assert [item["name"] for item in await other.state()] == ["a"]
    os.kill(owner.pid, 9)
    await _until(lambda: not sandbox.is_alive(owner))
    await _until(lambda: not _running("1000"))
    await sandbox.remove(DIRECTORY)


async def memory_volume(state: Path) -> None:
    """An emptyDir of medium Memory is a tmpfs of its own that containers write, and goes with the sandbox."""
    volumes, disk = DIRECTORY / "volumes", state / "pods" / "uid"
    empty = {"medium": "Memory", "sizeLimit": "1Mi"}
    given = [{"name": "keys", "emptyDir": empty}, {"name": "data", "emptyDir": {}}]
    mounted = {
        "name": "a",
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}, {"name": "data", "mountPath": "/data"}],
    }
    spec = {"automountServiceAccountToken": False, "volumes": given, "containers": [mounted]}
    pod = {"metadata": {"namespace": "default"}, "spec": spec}
    made = PodVolumes(None, volumes, disk, [], user_base("uid"))  # type: ignore[arg-type]
    for _ in range(2):  # the second leaves what is there
        await made.refresh(pod)
    shim = await launch(state)
    script = "echo secret > /keys/key && echo x > /data/x && ! head -c 2000000 /dev/zero > /keys/much"
    script += " && rm /keys/much"
    await shim.start(container(state, "a", "sh", "-c", script, mounts=made.mounts(pod, mounted, {})))
    assert (await ended(shim, "a"))["exit_code"] == 0, log_of(state, "a")
    assert (volumes / "keys" / "key").read_text() == "secret\n"
    assert [path.name for path in state.rglob("*") if path.name in ("key", "x")] == ["x"]
    assert f" {volumes}/keys " in Path("/proc/mounts").read_text()
    await made.refresh(pod)
    assert (volumes / "keys" / "key").exists()
    await sandbox.remove(DIRECTORY)
    assert not DIRECTORY.exists()
    assert str(volumes) not in Path("/proc/mounts").read_text()


def _running(argument: str) -> bool:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            state = (path / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue
        if words[:2] == [b"sleep", argument.encode()] and state != b"Z":
            return True
    return False


async def _until(condition: Callable[[], bool]) -> None:
    async def check() -> bool:
        return condition()

    await eventually(check)
