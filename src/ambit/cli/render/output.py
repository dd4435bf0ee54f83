"""One way to print rows: an aligned table with capital headers as kubectl's, JSON, or YAML.

stdout is data; notes go to stderr. Nothing is cut to the terminal's width, so that output can be piped.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS = ("table", "json", "yaml")


def output_option(function: Command) -> Command:
    """The `-o` flag that every reading command has."""
    decorate = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Output format.",
    )
    return decorate(function)


def emit(columns: Sequence[str], rows: Sequence[Sequence[str]], data: Any, output: str) -> None:
    """Print `rows` under `columns`, or `data` (plain JSON values) when a machine format was asked for."""
    if output == "table":
        sys.stdout.write(table(columns, rows))
    else:
        emit_data(data, output)


def emit_data(data: Any, output: str) -> None:
    """Print plain JSON values as JSON (indented) or YAML."""
    if output == "yaml":
        import yaml

        sys.stdout.write(yaml.safe_dump(msgspec.to_builtins(data), sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns three spaces apart, as kubectl prints them."""
    lines = [list(columns), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def printable(text: str) -> str:
    """Text from the network without what could drive a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text) or "-"
