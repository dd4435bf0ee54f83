"""`ambit local node …`."""

import os

import click

from ambit.cli.access import name_option, running_state
from ambit.cli.groups import Group
from ambit.cli.render.output import emit, output_option
from ambit.local.config import read_config
from ambit.local.instance.enter import enter_command
from ambit.local.instance.preflight import search_path
from ambit.local.instance.record import read_record


@click.group("node", cls=Group)
def node() -> None:
    """Look at nodes, and into their network namespaces."""


@node.command("list")
@name_option
@output_option
def list_nodes(name: str | None, output: str) -> None:
    """Nodes with their addresses."""
    nodes = read_config(running_state(name)).node_addresses
    rows = [[each.name, str(each.v4), str(each.v6), str(each.pods_v4), str(each.pods_v6)] for each in nodes]
    data = [
        {
            "name": each.name,
            "addresses": [str(each.v4), str(each.v6)],
            "podCIDRs": [str(each.pods_v4), str(each.pods_v6)],
        }
        for each in nodes
    ]
    emit(["NAME", "IPV4", "IPV6", "PODS IPV4", "PODS IPV6"], rows, data, output)


@node.command("exec", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("place")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...")
def execute(name: str | None, place: str, words: tuple[str, ...]) -> None:
    """Run a program in the network namespace of a node (or of `fabric`).

    Example: ambit local node exec node1 -- tcpdump -Z root -ni eth0
    """
    record = read_record(running_state(name))
    assert record is not None
    command = enter_command(record, place, list(words))
    os.execvpe(command[0], command, {**os.environ, "PATH": search_path()})
