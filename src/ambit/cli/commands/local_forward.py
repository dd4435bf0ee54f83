"""`ambit local forward …`: a service of the laptop cluster on a port of this machine."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from ambit.cli.access import laptop_client, name_option, run, with_client
from ambit.cli.groups import Group
from ambit.cli.render.output import emit, output_option
from ambit.cli.settings import read_entries, write_entries
from ambit.core.errors import BadInput, NotRunning
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import SERVICES
from ambit.local.forward.wanted import CONFIG_MAP, KEY

PATIENCE = 30.0
"""Seconds."""
FORWARDED = ("TCP", "UDP")


@click.group("forward", cls=Group)
def forward() -> None:
    """Reach services of the cluster from this machine. Envoy carries; nothing here has to stay running."""


@forward.command("add")
@name_option
@click.argument("service")
@click.argument("port", metavar="[HOST_PORT:]PORT[/udp]")
@click.option(
    "-n",
    "--namespace",
    default=None,
    metavar="NAME",
    help="Of a service that is not NAME.NAMESPACE; else the context's.",
)
@click.option(
    "--host-port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 takes a free one."
)
def add(name: str | None, service: str, port: str, namespace: str | None, host_port: int) -> None:
    """Join 127.0.0.1:HOST_PORT to PORT (a number or a name) of SERVICE, and print the address. Of a number that is one
    of TCP and one of UDP, TCP's is meant, unless it says /udp."""
    before, colon, port = port.rpartition(":")
    if colon and host_port and _number(before) != host_port:
        raise BadInput(f"two ports of this machine are given, {before} and {host_port}", "give one of them")
    chosen = (_number(before) if colon else host_port) or free_port()

    async def work(client: Client) -> None:
        wanted, place = named_service(service, namespace or client.namespace)
        await add_forward(client, place, wanted, port, chosen)

    run(with_client(laptop_client(name), work))
    click.echo(f"127.0.0.1:{chosen}")


@forward.command("remove")
@name_option
@click.argument("address", metavar="HOST_PORT")
def remove(name: str | None, address: str) -> None:
    """Stop forwarding a port of this machine, with or without the address before it."""
    host_port = _number(address.removeprefix("127.0.0.1:").removeprefix("localhost:"))

    async def work(client: Client) -> None:
        wanted = await read_entries(client, CONFIG_MAP, KEY)
        kept = [entry for entry in wanted if entry["hostPort"] != host_port]
        if len(kept) == len(wanted):
            raise BadInput(f"port {host_port} is not forwarded", "see `ambit local forward list`")
        await write_entries(client, CONFIG_MAP, KEY, kept)

    run(with_client(laptop_client(name), work))


@forward.command("list")
@name_option
@output_option
def list_forwards(name: str | None, output: str) -> None:
    """Ports of this machine that lead into the cluster."""
    wanted = run(with_client(laptop_client(name), lambda client: read_entries(client, CONFIG_MAP, KEY)))
    rows = [
        [f"127.0.0.1:{each['hostPort']}", each["namespace"], each["service"], _port_of(each)]
        for each in wanted
    ]
    emit(["ADDRESS", "NAMESPACE", "SERVICE", "PORT"], rows, wanted, output)


def named_service(text: str, namespace: str) -> tuple[str, str]:
    """Name and namespace of `NAME`, `NAME.NAMESPACE[.svc…]`, with `svc/` before it or not. Raises BadInput."""
    kind, slash, rest = text.rpartition("/")
    if slash and kind not in ("svc", "service", "services"):
        raise BadInput(f"{text!r} is no service", "give its name; another namespace: -n, or NAME.NAMESPACE")
    service, dot, domain = rest.partition(".")
    return service, domain.partition(".")[0] if dot else namespace


def chosen_port(ports: Iterable[Mapping[str, Any]], wanted: str) -> tuple[int, str] | None:
    """Number and protocol of the port with that number or name, with `/udp` or `/tcp` or without; None when there is
    none. `ports` are a Service's."""
    named, _, protocol = wanted.partition("/")
    found = [
        (int(each["port"]), each.get("protocol", "TCP"))
        for each in ports
        if named
        and named in (str(each["port"]), each.get("name"))
        and each.get("protocol", "TCP") in FORWARDED
    ]
    return min(
        (each for each in found if protocol.upper() in ("", each[1])), key=lambda each: each[1], default=None
    )


def _port_of(given: Mapping[str, Any]) -> str:
    protocol = given.get("protocol", "TCP")
    return str(given["port"]) if protocol == "TCP" else f"{given['port']}/{protocol.lower()}"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise BadInput(f"{text!r} is no port of this machine", "a number from 1 to 65535")
    return int(text)


async def add_forward(client: Client, namespace: str, service: str, port: int | str, host_port: int) -> None:
    """Ask for a forward of a port, by number or name, and wait until it answers. Raises BadInput, NotRunning."""
    try:
        found = await client.get(SERVICES, service, namespace)
    except NotFound as problem:
        hint = "type `kubectl get services -A`; another namespace: -n"
        raise BadInput(f"no service {namespace}/{service}", hint) from problem
    ports = found["spec"].get("ports", ())
    chosen = chosen_port(ports, str(port))
    if chosen is None:
        known = ", ".join(
            f"{_port_of(each)} ({each['name']})" if each.get("name") else _port_of(each) for each in ports
        )
        raise BadInput(
            f"service {namespace}/{service} has no port {port}",
            f"it has: {known or 'none'}",
        )
    number, protocol = chosen
    entry = {"namespace": namespace, "service": service, "port": number, "hostPort": host_port}
    if protocol != "TCP":
        entry["protocol"] = protocol
    await write_entries(
        client,
        CONFIG_MAP,
        KEY,
        [
            *(each for each in await read_entries(client, CONFIG_MAP, KEY) if each["hostPort"] != host_port),
            entry,
        ],
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            await (_open(host_port) if protocol == "TCP" else _open_udp(host_port))
        except OSError:
            await asyncio.sleep(0.05)
            continue
        return
    raise NotRunning(f"the forwarder did not open port {host_port}", "see `ambit local logs host-forwarder`")


async def _open(host_port: int) -> None:
    """Returns when a connection stays open. One that is ended at once met the outer half of a forward that has no
    inner half yet, or a service without endpoints: after a while it counts. Raises OSError when nobody listens."""
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", host_port)
        try:
            async with asyncio.timeout(0.1):
                if await reader.read(1):
                    return
        except TimeoutError:
            return
        except OSError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(0.05)


async def _open_udp(host_port: int) -> None:
    """Returns when somebody has the port: nobody answers a datagram unasked. Raises OSError when nobody has."""
    if not has_datagrams(host_port):
        raise OSError("nobody has it")


def has_datagrams(host_port: int) -> bool:
    """Whether somebody has this port of UDP at 127.0.0.1. Does not try to have it: the forwarder could not have it at
    that moment, and does not ask again."""
    loopback = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
    ends = {f"{address:08X}:{host_port:04X}" for address in (loopback, 0)}
    lines = Path("/proc/self/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1] in ends for line in lines)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, of TCP or UDP. Raises OSError when there is none."""
    for _ in range(100):
        with socket.socket() as probe, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            probe.bind(("127.0.0.1", 0))
            number = int(probe.getsockname()[1])
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", number))
                return number
    raise OSError("no port is free")
