"""`ambit local image …`: which command stands for an image name on the laptop, where there are no images."""

import re
import shlex

import click

from ambit.cli.access import laptop_client, name_option, run, with_client
from ambit.cli.groups import Group
from ambit.cli.render.output import emit, output_option
from ambit.cli.settings import Entries, read_entries, write_entries
from ambit.core.errors import BadInput
from ambit.kube.client import Client

CONFIG_MAP = "image-map"
_SAMPLE = re.compile(r"from ambit\.local\.samples\.(\w+) import main")
KEY = "images.yaml"


@click.group("image", cls=Group)
def image() -> None:
    """Map image names to commands of this machine."""


@image.command("add", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("pattern")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...")
def add(name: str | None, pattern: str, words: tuple[str, ...]) -> None:
    """Run COMMAND for images that match PATTERN (`*` matches anything).

    Example: ambit local image add 'nginx:*' -- python3 -m http.server 80
    """
    from ambit.local.pods.images import is_program

    if not pattern.strip() or not words[0].strip():
        raise BadInput("an empty pattern or command fits no image", "see `ambit local image list`")

    async def work(client: Client) -> None:
        entries = [
            entry for entry in await read_entries(client, CONFIG_MAP, KEY) if entry["pattern"] != pattern
        ]
        await write_entries(client, CONFIG_MAP, KEY, [{"pattern": pattern, "command": list(words)}, *entries])

    run(with_client(laptop_client(name), work))
    click.echo(f"Images {pattern} run `{shlex.join(words)}`", err=True)
    if not is_program(words[0]):
        click.echo(
            f"warning: this machine has no program `{words[0]}`; such pods wait until it has", err=True
        )


@image.command("remove")
@name_option
@click.argument("pattern")
def remove(name: str | None, pattern: str) -> None:
    """Forget a pattern that was added."""
    from ambit.local.pods.images import BUILT_IN

    async def work(client: Client) -> None:
        entries = await read_entries(client, CONFIG_MAP, KEY)
        kept = [entry for entry in entries if entry["pattern"] != pattern]
        if len(kept) == len(entries):
            if any(entry.pattern == pattern for entry in BUILT_IN):
                raise BadInput(
                    f"the pattern {pattern!r} is built in and stays",
                    f"yours goes first: `ambit local image add {shlex.quote(pattern)} -- COMMAND`",
                )
            raise BadInput(f"no pattern {pattern!r} was added", "see `ambit local image list`")
        await write_entries(client, CONFIG_MAP, KEY, kept)

    run(with_client(laptop_client(name), work))
    click.echo(f"Pattern {pattern} is forgotten", err=True)


@image.command("list")
@name_option
@output_option
def list_images(name: str | None, output: str) -> None:
    """Patterns in the order in which they are tried; built-in ones come last."""
    from ambit.local.pods.images import BUILT_IN

    async def work(client: Client) -> Entries:
        return await read_entries(client, CONFIG_MAP, KEY)

    added = run(with_client(laptop_client(name), work))
    built_in: Entries = [
        {"pattern": entry.pattern, "command": list(entry.command), "args": list(entry.args)}
        for entry in BUILT_IN
    ]
    rows = [
        [entry["pattern"], source, words([*entry["command"], *entry.get("args", ())])]
        for source, entries in (("added", added), ("built-in", built_in))
        for entry in entries
    ]
    emit(["PATTERN", "SOURCE", "COMMAND"], rows, [*added, *built_in], output)


def words(command: list[str]) -> str:
    """A command for the table; that of a sample of ours, which is long, by the sample's name."""
    for index, word in enumerate(command):
        if found := _SAMPLE.search(word):
            return f"(ambit's sample {shlex.join([found[1], *command[index + 1 :]])})"
    return shlex.join(command)
