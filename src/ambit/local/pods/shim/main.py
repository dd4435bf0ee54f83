"""The shim: first process of a pod. Starts, reaps and logs containers on command; outlives whoever commands
it.

`python -I -S -c … <file>` with a `Sandbox` as JSON. The process first enters the pod's namespaces and forks;
the parent prints `{"pid": …}` once the child listens, and ends. The child is PID 1 of the pod (with host PIDs:
a subreaper).
"""

from __future__ import annotations

import json
import os
import signal
import sys

from ambit.local import kernel as linux
from ambit.local.pods.shim import kernel
from ambit.local.pods.shim.server import Server

TYPE_CHECKING = False  # `typing` costs each pod a megabyte
if TYPE_CHECKING:
    from ambit.local.pods.shim.protocol import Sandbox


def main(settings_path: str) -> None:
    with open(settings_path, encoding="utf-8") as file:
        sandbox: Sandbox = json.load(file)
    os.setsid()
    _enter_namespaces(sandbox)
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready_write)
        with os.fdopen(ready_read, "r") as ready:
            problem = ready.read()
        if problem:
            sys.exit(problem)
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        return
    os.close(ready_read)
    try:
        server = _become_first(sandbox)
    except OSError as problem:
        os.write(ready_write, f"{problem}\n".encode())
        os._exit(1)
    os.close(ready_write)
    server.serve()


def _enter_namespaces(sandbox: Sandbox) -> None:
    linux.setns(sandbox["netns"], linux.CLONE_NEWNET)
    if not sandbox["host_network"]:
        # As container runtimes do: low ports need no right inside a pod.
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w", encoding="ascii") as file:
            file.write("0")
    pids = 0 if sandbox["host_pids"] else linux.CLONE_NEWPID
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | pids)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_SLAVE)
    kernel.set_hostname(sandbox["hostname"])


def _become_first(sandbox: Sandbox) -> Server:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    if sandbox["host_pids"]:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    else:
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    os.makedirs(sandbox["staging"], exist_ok=True)
    server = Server(sandbox)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return server
