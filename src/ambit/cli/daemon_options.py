"""Options that every daemon of ours takes."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def log_options(function: Function) -> Function:
    """`--log-level` and `--log-format`, for `ambit.daemon.logs.set_up`."""
    for option in (
        click.option(
            "--log-format",
            type=click.Choice(["plain", "json"]),
            default="plain",
            show_default=True,
            help="Form of a log line.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
            help="Least level that is logged.",
        ),
    ):
        function = option(function)
    return function
