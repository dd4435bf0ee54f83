"""Which cluster a command speaks to, and how it reaches the mesh's own pods: the same on a laptop and on Kubernetes."""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from ambit.core.errors import BadInput, NotRunning, first_failure
from ambit.kube.client import Client
from ambit.local.instance.record import read_record
from ambit.local.layout import StateDirectory

DEFAULT_NAME = "ambit"
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


def name_option(function: Function) -> Function:
    """`--name`: which laptop instance."""
    return click.option(
        "--name", default=None, metavar="NAME", help=f"Laptop instance.  [default: {DEFAULT_NAME}]"
    )(function)


def cluster_options(function: Function) -> Function:
    """`--name` or `--kubeconfig`/`--context`: which cluster a reading command asks."""
    for option in (
        click.option("--context", default=None, metavar="NAME", help="Context of the kubeconfig."),
        click.option(
            "--kubeconfig", default=None, metavar="FILE", help="Ask the cluster of this kubeconfig."
        ),
        name_option,
    ):
        function = option(function)
    return function


def all_namespaces(function: Function) -> Function:
    """`-A`, as typed to kubectl, of a command that shows all namespaces when none is named."""
    return click.option(
        "-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces, as without -n."
    )(function)


def instance_state(name: str | None) -> StateDirectory:
    """The state directory of a named instance. Raises BadInput for a name that is no file name."""
    chosen = name or DEFAULT_NAME
    if not chosen.replace("-", "").isalnum() or len(chosen) > 40:
        raise BadInput(f"{chosen!r} cannot be an instance's name", "use letters, digits and `-`, at most 40")
    return StateDirectory.of(chosen)


def asked_state(name: str | None) -> StateDirectory:
    """The same, running or not: `--name` wins, then the instance whose kubeconfig $KUBECONFIG is, then the default."""
    usual = usual_kubeconfig() if name is None else None
    return instance_state(name or (_instance_of(usual) if usual is not None else None))


def running_state(name: str | None) -> StateDirectory:
    """The same, of an instance that runs. Raises NotRunning."""
    state = asked_state(name)
    record = read_record(state)
    if record is None or not record.is_running():
        missed = state.root.name
        flag = f" --name {missed}" if missed != DEFAULT_NAME else ""
        others = running_names(state)
        also = f"; running: {', '.join(others)} (choose one with --name)" if others else ""
        raise NotRunning(f"no instance {missed!r} is running", f"type `ambit up{flag}`{also}")
    return state


def running_names(state: StateDirectory) -> list[str]:
    """The instances that run beside `state`, by name."""
    records = [read_record(StateDirectory(state.root.parent / name)) for name in instance_names(state)]
    return [record.name for record in records if record is not None and record.is_running()]


def instance_names(state: StateDirectory) -> list[str]:
    """The instances that have files beside `state`, running or crashed; no other directory."""
    return sorted(file.parent.name for file in state.root.parent.glob("[!.]*/instance.json"))


def open_client(name: str | None, kubeconfig: str | None, context: str | None) -> Client:
    """`--kubeconfig` wins, then `--name`, then $KUBECONFIG, then a running default instance, then `~/.kube/config`.

    A variable that is set is as much said as an option is, and kubectl, istioctl and helm ask its cluster beside this
    command. That file goes before the default instance when a context of it is named. A kubeconfig of a laptop instance
    stands for that instance. Raises NotRunning when nothing is left, BadInput for a kubeconfig that cannot be used.
    """
    if kubeconfig is not None:
        return Client.from_kubeconfig(kubeconfig, context)
    usual = usual_kubeconfig() if name is None else None
    name = name or (_instance_of(usual) if usual is not None else None)
    if usual is not None and name is None and (context is not None or _named() or not _runs()):
        return Client.from_kubeconfig(usual, context)
    return Client.from_kubeconfig(running_state(name).kubeconfig, context)


def laptop_client(name: str | None) -> Client:
    """`--name` wins, then the instance whose kubeconfig $KUBECONFIG is, then the default one; never another cluster.

    Raises NotRunning.
    """
    return Client.from_kubeconfig(running_state(name).kubeconfig, None)


def usual_kubeconfig() -> str | None:
    """The one that kubectl takes: the first file of $KUBECONFIG, else `~/.kube/config` when that exists."""
    if named := _named():
        return named
    file = Path.home() / ".kube" / "config"
    return str(file) if file.is_file() else None


def _named() -> str:
    return os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]


def _runs() -> bool:
    """Whether the default instance does."""
    record = read_record(instance_state(None))
    return record is not None and record.is_running()


def _instance_of(kubeconfig: str) -> str | None:
    """The laptop instance, running or not, whose kubeconfig this is; None for any other cluster's."""
    file = Path(kubeconfig).absolute()
    state = StateDirectory.of(file.parent.name or DEFAULT_NAME)
    return file.parent.name if file == state.kubeconfig.absolute() else None


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run one command's asynchronous part; errors of task groups are shown as the first of them. Raises
    KeyboardInterrupt after SIGTERM, too: the work is cancelled first, as asyncio does it after SIGINT."""
    is_ended = False

    async def cancelled_by_signal() -> Result:
        task = asyncio.current_task()
        assert task is not None

        def end() -> None:
            nonlocal is_ended
            is_ended = True
            task.cancel()

        if threading.current_thread() is threading.main_thread():  # others may not, and get no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        return await work

    try:
        return asyncio.run(cancelled_by_signal())
    except asyncio.CancelledError:
        if is_ended:
            raise KeyboardInterrupt from None
        raise
    except BaseExceptionGroup as group:
        raise first_failure(group) from group


async def with_client(client: Client, work: Callable[[Client], Awaitable[Result]]) -> Result:
    """`work` with the client open."""
    async with client:
        return await work(client)
