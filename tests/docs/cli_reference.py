"""`docs/cli.md`, written from the commands themselves. `pytest tests/docs --update-golden` renews it."""

import click

from ambit.cli.access import cluster_options
from ambit.cli.render.output import output_option
from tests.docs.commands import Words, commands, options

HEAD = """\
# Commands

Written from the commands themselves (`pytest tests/docs --update-golden` renews it). `-h` prints the same.

Only data goes to standard output; notes and errors go to standard error.

Exit codes: 0 done; 1 not healthy, a claim did not hold, or something else stood in the way; 2 a mistake in what was
typed or applied; 130 interrupted.

Words of `istioctl` and `linkerd` (`proxy-status`, `analyze`, `tap`, …) are answered with the command here. The shell
completes commands and options after `eval "$(_AMBIT_COMPLETE=bash_source ambit)"` (`zsh_source`, `fish_source`).

## Common options

Commands that read the mesh ask, in this order: the cluster of `--kubeconfig`, the laptop instance of `--name`, the
cluster of `$KUBECONFIG`, the instance `ambit` when it runs, the cluster of `~/.kube/config`. That file goes before the
instance when `--context` is given. A kubeconfig that is a laptop instance's stands for that instance. (In
`ambit waypoint` the instance is `--instance`, because `--name` names the waypoint, as in istioctl.)

"""
PIPE = "\\|"
"""A bar inside a table's cell."""
TABLE = ("| option | |", "| --- | --- |")


@cluster_options
@output_option
def _example() -> None:
    """Has the options that many commands share."""


COMMON = tuple(each for each in click.command()(_example).params if isinstance(each, click.Option))


def render() -> str:
    """The whole page."""
    context = click.Context(click.Command("ambit"))
    common = "\n".join([*TABLE, *(_row(each, context) for each in COMMON), ""])
    return "\n".join([HEAD + common, *(_section(words, command) for words, command in commands())])


def _section(words: Words, command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(words))
    name = " ".join(words)
    lines = [f"## {name}", "", _prose(command.help or "")]
    if isinstance(command, click.Group):
        members = [word for word in command.list_commands(context) if (*words, word) in dict(commands())]
        lines += ["", *(f"- [`{name} {word}`](#{'-'.join((*words, word))})" for word in members)]
    else:
        lines += ["", "```sh", _usage(command, context), "```"]
    common = [f"`--{each.name}`" for each in options(command) if _is_common(each)]
    if common:
        lines += ["", f"[Common](#common-options): {', '.join(common)}"]
    rows = [_row(each, context) for each in options(command) if not _is_common(each)]
    if rows:
        lines += ["", *TABLE, *rows]
    return "\n".join([*lines, ""])


def _is_common(option: click.Option) -> bool:
    return any((option.name, option.help) == (each.name, each.help) for each in COMMON)


def _prose(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]
    return "\n\n".join(part for part in paragraphs if part)


def _usage(command: click.Command, context: click.Context) -> str:
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece]
    return " ".join([context.info_name or "", *pieces])


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    flags, text = record
    names = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
    environment = f" Also {', else '.join(f'`${name}`' for name in names)}." if names else ""
    cells = ("`" + flags + "`", text + environment)
    return f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |"
