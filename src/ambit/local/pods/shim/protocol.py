"""What goes between the pod runner and a shim: one JSON object per line, on the shim's Unix socket.

Requests: `start` (a container), `exec` (three file descriptors come with it), `signal`, `state`, `stop`. Each
is answered by one line. On a connection that sent `watch` the shim also writes the whole state after each
change.
"""

from typing import NotRequired, TypedDict


class Mount(TypedDict):
    """`source` in the instance's view, `target` in the container's."""

    source: str
    target: str
    read_only: bool


class Sandbox(TypedDict):
    """What a shim is started with. `user_base` is the host's id of root in the pod; 0: the pod has the host's ids."""

    socket: str
    staging: str
    netns: str
    hostname: str
    host_pids: bool
    host_network: bool
    hidden: list[str]
    readable: list[str]
    user_base: int


class Process(TypedDict):
    """How a program runs; `user` None means root of the pod's user namespace."""

    argv: list[str]
    environment: dict[str, str]
    directory: str
    user: int | None
    group: int | None
    groups: list[int]


class Container(TypedDict):
    """One attempt to run one container. `started` is when it was asked for: runner and shim show the same time."""

    name: str
    attempt: int
    started: float
    process: Process
    privileged: bool
    mounts: list[Mount]
    log: str


class ContainerState(TypedDict):
    """Times are Unix seconds. `exit_code` is 128 + signal for a killed process, as a shell says it.

    `reason` and `message` are the pod runner's, for an attempt that never became a process.
    """

    name: str
    attempt: int
    pid: int
    started: float
    finished: float | None
    exit_code: int | None
    signal: int | None
    reason: NotRequired[str]
    message: NotRequired[str]


class Request(TypedDict):
    op: str
    container: NotRequired[Container]
    name: NotRequired[str]
    signal: NotRequired[int]
    process: NotRequired[Process]
    terminal: NotRequired[bool]


class Reply(TypedDict):
    ok: bool
    error: NotRequired[str]
    pid: NotRequired[int]
    containers: NotRequired[list[ContainerState]]
    exit_code: NotRequired[int]
