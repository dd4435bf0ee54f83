"""The command line as a tree, and commands that are written in text, checked against it."""

import re
import shlex
from collections.abc import Iterator

import click

from ambit.cli.main import ambit

Words = tuple[str, ...]
_STOPS = re.compile(r"\s*(?:\||;|&&|\|\||>|#|\$\()\s*")
_PLACEHOLDER = re.compile(r"[{}…]|\.\.\.")


def commands() -> Iterator[tuple[Words, click.Command]]:
    """Every command that people see, with its words, groups before their members."""
    yield from _below(("ambit",), ambit)


def _below(words: Words, command: click.Command) -> Iterator[tuple[Words, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            if not child.hidden:
                yield from _below((*words, name), child)


def options(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def written_commands(text: str) -> Iterator[str]:
    """`ambit …` in Markdown: in code spans, and in lines of fenced blocks (comments, pipes and outputs cut off)."""
    fenced = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in fenced:
        for line in block.splitlines():
            yield from _in_line(line)
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        yield from _in_line(span)


def _in_line(line: str) -> Iterator[str]:
    for part in _STOPS.split(line.removeprefix("$ ")):
        found = re.match(r"(?:[A-Z_]+=\S+ )*(ambit(?: .*)?)$", part.strip().rstrip(")"))
        if found:
            yield found[1]


def problem_of(written: str) -> str:
    """Why this is no command of ours; empty when it is one. Alternatives `a|b` stand for each of them."""
    alternatives = re.search(r"[a-z]+(?:\|[a-z]+)+", written)
    if alternatives:
        each = (written.replace(alternatives[0], word, 1) for word in alternatives[0].split("|"))
        return next((problem for problem in map(problem_of, each) if problem), "")
    words = shlex.split(written.partition(" -- ")[0])
    known = dict(commands())
    path: Words = ()
    for word in words:
        if (*path, word) not in known:
            break
        path = (*path, word)
    command = known[path]
    rest = words[len(path) :]
    if (
        isinstance(command, click.Group)
        and rest
        and not rest[0].startswith("-")
        and not _PLACEHOLDER.match(rest[0])
    ):
        return f"`{written}`: {' '.join(path)} has no command {rest[0]!r}"
    flags = {flag for each in options(command) for flag in (*each.opts, *each.secondary_opts)} | {
        "-h",
        "--help",
    }
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in flags:
            return f"`{written}`: {' '.join(path)} has no option {word}"
    return ""
