"""`ambit local forward …`: a service of the laptop cluster on a port of this machine."""

import asyncio
import socket
import time

import click

from ambit.cli.access import laptop_client, name_option, run, with_client
from ambit.cli.render.output import emit, output_option
from ambit.cli.settings import read_entries, write_entries
from ambit.core.errors import BadInput, NotRunning
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import SERVICES
from ambit.local.forward.wanted import CONFIG_MAP, KEY

PATIENCE = 10.0


@click.group("forward")
def forward() -> None:
    """Reach services of the cluster from this machine. Envoy carries; nothing here has to stay running."""


@forward.command("add")
@name_option
@click.argument("service")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the service.")
@click.option(
    "--host-port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 takes a free one."
)
def add(name: str | None, service: str, port: int, namespace: str, host_port: int) -> None:
    """Join 127.0.0.1:HOST_PORT to PORT of SERVICE, and print the address."""
    chosen = host_port or free_port()
    run(
        with_client(
            laptop_client(name),
            lambda client: add_forward(client, namespace, service, port, chosen),
        )
    )
    click.echo(f"127.0.0.1:{chosen}")


@forward.command("remove")
@name_option
@click.argument("host_port", type=click.IntRange(1, 65535))
def remove(name: str | None, host_port: int) -> None:
    """Stop forwarding a port of this machine."""

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
        [f"127.0.0.1:{each['hostPort']}", each["namespace"], each["service"], str(each["port"])]
        for each in wanted
    ]
    emit(["ADDRESS", "NAMESPACE", "SERVICE", "PORT"], rows, wanted, output)


async def add_forward(client: Client, namespace: str, service: str, port: int, host_port: int) -> None:
    """Ask for a forward and wait until the port answers. Raises BadInput, NotRunning."""
    try:
        found = await client.get(SERVICES, service, namespace)
    except NotFound as problem:
        hint = "type `kubectl get services -A`; another namespace: -n"
        raise BadInput(f"no service {namespace}/{service}", hint) from problem
    ports = [int(each["port"]) for each in found["spec"].get("ports", ())]
    if port not in ports:
        raise BadInput(
            f"service {namespace}/{service} has no port {port}",
            f"it has: {', '.join(map(str, ports)) or 'none'}",
        )
    entry = {"namespace": namespace, "service": service, "port": port, "hostPort": host_port}
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
            _, writer = await asyncio.open_connection("127.0.0.1", host_port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise NotRunning(f"the forwarder did not open port {host_port}", "see `ambit local logs host-forwarder`")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
