"""The `ambit` command: subcommands are imported only when they are used."""

import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from ambit import __version__
from ambit.core.errors import AmbitError

COMMANDS = {
    "up": ("ambit.cli.commands.up:command", "Start a laptop cluster with the mesh in it."),
    "down": ("ambit.cli.commands.down:command", "Stop a laptop cluster and remove everything it made."),
    "demo": (
        "ambit.cli.commands.demo:command",
        "Two nodes with bookinfo under mutual TLS, each claim measured.",
    ),
    "install": (
        "ambit.cli.commands.install:command",
        "Install the mesh into a Kubernetes cluster, or upgrade it.",
    ),
    "uninstall": ("ambit.cli.commands.uninstall:command", "Remove the mesh from a Kubernetes cluster."),
    "check": ("ambit.cli.commands.check:command", "Is everything healthy, and what to type if not."),
    "explain": ("ambit.cli.commands.explain:command", "What a finding's code means and what to do."),
    "compile": (
        "ambit.cli.commands.compile:command",
        "What files of API objects come to: what nodes would be told, without a cluster.",
    ),
    "why": (
        "ambit.cli.commands.why:command",
        "Why a connection from SRC to DST:PORT, or a request, is allowed or denied.",
    ),
    "dns": ("ambit.cli.commands.dns:command", "Names as captured pods see them."),
    "ps": ("ambit.cli.commands.ps:command", "List proxies, their versions and their sync state."),
    "workloads": (
        "ambit.cli.commands.proxy_state:workloads",
        "Workloads that node proxies know, and how they are reached.",
    ),
    "services": (
        "ambit.cli.commands.proxy_state:services",
        "Services that node proxies know, with healthy and all endpoints.",
    ),
    "policies": (
        "ambit.cli.commands.proxy_state:policies",
        "Authorization policies as node proxies enforce them.",
    ),
    "certs": (
        "ambit.cli.commands.certs:command",
        "Certificates of the workloads on each node, and when they end.",
    ),
    "connections": ("ambit.cli.commands.proxy_state:connections", "Open connections of enrolled pods."),
    "flows": (
        "ambit.cli.commands.flows:command",
        "Show live decisions: who talked to whom, with which identity, and what was decided by which rule.",
    ),
    "control": ("ambit.cli.commands.control:command", "Run the control plane."),
    "node": ("ambit.cli.commands.node:command", "Node agents and their Envoys."),
    "waypoint": ("ambit.cli.commands.waypoint:command", "Make, list and delete waypoints."),
    "proxy": ("ambit.cli.commands.proxy:command", "Proxies of waypoints and gateways."),
    "local": ("ambit.cli.commands.local:command", "Look into a laptop cluster."),
    "version": (
        "ambit.cli.commands.version:command",
        "Print the versions of this program, the control plane, the node proxies and their Envoys.",
    ),
}
"""Command name to `module:attribute` and the first sentence of its help: `ambit --help` imports none."""


ELSEWHERE = {
    "help": "--help",
    "proxy-status": "ps",
    "proxy-config": "compile -o envoy",
    "pc": "compile -o envoy",
    "zc": "workloads`, `services`, `policies`, `certs` or `connections",
    "ztunnel-config": "workloads`, `services`, `policies`, `certs` or `connections",
    "analyze": "check`, for files `ambit compile -f FILE",
    "diagnostics": "check",
    "manifest": "install --dry-run",
    "verify-install": "check",
    "precheck": "check --pre",
    "bug-report": "check -o json`, `ps -o json` and `node status -o json",
    "status": "check",
    "tap": "flows -f",
    "observe": "flows -f",
    "monitor": "flows -f",
    "stat": "flows` or `ambit connections",
    "top": "flows -f --requests",
    "edges": "flows",
    "viz": "flows -f",
    "dashboard": "flows -f",
    "describe": "why` or `ambit workloads",
    "authz": "why",
    "x": "why",
    "experimental": "why",
    "identity": "certs",
    "upgrade": "install",
    "start": "up",
    "stop": "down",
    "delete": "down",
}
"""What other meshes' and local clusters' tools call it, and what to type here after `ambit`."""


WAYPOINT = "waypoint"
EXPERIMENTAL = ("x", "experimental")
"""Where istioctl had it, and many guides still have it."""


class _ReaderGone(Exception):
    """Whoever reads standard output has seen enough."""


TYPE = {
    "logs": "Type `kubectl -n ambit-system logs -l app=ztunnel` (node agents) or `-l app=istiod` (control plane); "
    "on a laptop also `ambit local logs`.",
    "inject": "Nothing is injected into pods: type `kubectl label namespace NAME istio.io/dataplane-mode=ambient`.",
    "completion": 'For bash type `eval "$(_AMBIT_COMPLETE=bash_source ambit)"`; others: `zsh_source`, `fish_source`.',
}
"""What is not a command of ours, and what to type instead."""
TYPE["kube-inject"] = TYPE["inject"]


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Takes it before click makes a failure of it. Raises _ReaderGone."""
    try:
        yield
    except BrokenPipeError:
        raise _ReaderGone from None


class LazyGroup(click.Group):
    """Imports a command's module when it is called."""

    def make_context(self, *given: Any, **extra: Any) -> click.Context:
        with _reading():
            return super().make_context(*given, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _reading():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[1:2] == [WAYPOINT] and args[0] in EXPERIMENTAL:
            args = args[1:]
        if args and args[0] in ELSEWHERE:
            raise click.UsageError(
                f"No such command '{args[0]}'. Here it is `ambit {ELSEWHERE[args[0]]}`.", ctx
            )
        if args and args[0] in TYPE:
            raise click.UsageError(f"No such command '{args[0]}'. {TYPE[args[0]]}", ctx)
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def ambit(context: click.Context) -> None:
    """A sidecar-less service mesh: Python decides, stock Envoy carries."""
    if os.environ.get("NO_COLOR"):  # no-color.org
        context.color = False


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def _give_up_output() -> None:
    """What is still in the buffer goes nowhere, or the interpreter would try it again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def main() -> None:
    """Entry point. An AmbitError becomes a sentence, a hint and an exit code; SIGTERM acts as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            ambit.main(standalone_mode=False, prog_name="ambit")
        finally:
            sys.stdout.flush()
    except (_ReaderGone, BrokenPipeError):
        _give_up_output()
        sys.exit(0)
    except OSError as problem:
        _give_up_output()
        if problem.errno not in _UNWRITABLE or problem.filename is not None:
            raise
        click.echo(f"error: standard output cannot be written: {os.strerror(problem.errno)}", err=True)
        sys.exit(1)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except click.Abort:
        sys.exit(130)
    except AmbitError as problem:
        click.echo(f"error: {problem.message}", err=True)
        if problem.hint:
            click.echo(f"\nhint: {problem.hint}", err=True)
        sys.exit(problem.exit_code)
