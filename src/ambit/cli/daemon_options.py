"""Options that daemons of ours take, and their types."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """Seconds, written as Go does: `5s`, `500ms`, `1m30s`."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        if not value or _PARTS.sub("", value):
            self.fail(f"{value!r} is no duration like 5s, 500ms or 1m30s")
        return sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(value))


certificate_lifetime_option = click.option(
    "--certificate-lifetime",
    type=Duration(),
    envvar="SECRET_TTL",
    default="24h",
    show_default=True,
    help="For how long certificates are requested. An authority that allows less decides.",
)


class Ranges(click.ParamType[str]):
    """A CIDR, or `services`, or nothing."""

    name = "cidr"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        import ipaddress

        if value not in ("", "services"):
            try:
                ipaddress.ip_network(value)
            except ValueError as problem:
                self.fail(f"{value!r} is neither services nor a CIDR like 10.244.0.0/16: {problem}")
        return value


class Threads(click.ParamType[int]):
    """A number of threads, or `auto`, which is 0: as many as there are processors."""

    name = "threads"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "auto":
            return 0
        if not value.isdecimal() or not int(value):
            self.fail(f"{value!r} is neither auto nor a number of threads from 1 on")
        return int(value)


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


def given(path: Path | None) -> Path | None:
    """The path of an option that '' turns off."""
    return path if path and str(path) != "." else None


def trust_options(function: Function) -> Function:
    """`--root-cert`, `--token-file` and `--server-name`: how agent and control plane believe each other. The first two
    are read through `given`."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--server-name", default="", help="Name expected in the control plane's certificate."),
        click.option(
            "--token-file",
            type=path,
            envvar="CONTROL_TOKEN_FILE",
            default="/var/run/secrets/tokens/istio-token",
            show_default=True,
            help="Bearer token for the control plane, read anew for each call.",
        ),
        click.option(
            "--root-cert",
            type=path,
            envvar="CONTROL_ROOT_CERT",
            default="/var/run/secrets/istio/root-cert.pem",
            show_default=True,
            help="Root that the control plane's certificate chains to; '' for plain text on loopback.",
        ),
    ):
        function = option(function)
    return function
