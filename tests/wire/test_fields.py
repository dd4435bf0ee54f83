"""The page about the wire says of every field of others' messages what becomes of it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor

from ambit.model.policy import Action, Clause, Exact, Match, Prefix, Presence, Suffix
from ambit.xds.messages import decode_authorization
from ambit.xds.protos import authorization_pb2 as security
from ambit.xds.protos import workload_pb2 as workload

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"
WORDS = {"honoured", "ignored", "closed"}


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    for message in file.message_types_by_name.values():
        if not message.GetOptions().map_entry:
            yield message


def fields() -> set[str]:
    files = (workload.DESCRIPTOR, security.DESCRIPTOR)
    return {
        f"{message.name}.{field.name}"
        for file in files
        for message in messages(file)
        for field in message.fields
    }


def table() -> dict[str, tuple[str, str]]:
    """What the page says, by field."""
    found: dict[str, tuple[str, str]] = {}
    for line in PAGE.read_text().partition("## Tunnels")[0].splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if len(cells) == 3 and "." in cells[0]:
            for name in re.findall(r"`(\w+\.\w+)`", cells[0]):
                assert name not in found, f"{name} is told twice"
                found[name] = cells[1], cells[2]
    return found


def test_every_field_is_told_and_no_other() -> None:
    assert set(table()) == fields()
    assert {word for word, _ in table().values()} == WORDS


def test_what_is_not_honoured_has_a_reason() -> None:
    assert all(reason for word, reason in table().values() if word != "honoured")


def decoded(action: Action, **fields: object) -> list[Clause]:
    """The clauses of a policy with one match."""
    policy = security.Authorization(name="a", namespace="b", action=int(action))  # type: ignore[arg-type]
    policy.rules.add().clauses.add().matches.append(security.Match(**fields))  # type: ignore[arg-type]
    (rule,) = decode_authorization(policy.SerializeToString()).rules
    return list(rule.clauses)


EXTENSIONS = [security.Extension(name="somebody.test/condition")]
NAMESPACES = [security.StringMatch(exact="shop")]


def test_a_condition_that_is_not_known_lets_nobody_in() -> None:
    """An empty match never holds; a clause without matches would always."""
    never, always = Match(), Match(namespaces=(Exact("shop"),))
    assert decoded(Action.ALLOW, namespaces=NAMESPACES, extensions=EXTENSIONS) == [Clause((never,))]
    assert decoded(Action.DENY, namespaces=NAMESPACES, extensions=EXTENSIONS) == [Clause((always,))]
    assert decoded(Action.ALLOW, namespaces=NAMESPACES) == [Clause((always,))]


def test_a_denial_by_nothing_but_such_a_condition_is_for_everybody() -> None:
    assert decoded(Action.DENY, extensions=EXTENSIONS) == [Clause()]


@pytest.mark.parametrize("kind", [Exact, Prefix, Suffix, Presence])
def test_kinds_of_texts_are_all_known(kind: type) -> None:
    kinds = {each.name for each in security.StringMatch.DESCRIPTOR.oneofs_by_name["match_type"].fields}
    assert kind.__name__.lower() in kinds
    assert len(kinds) == 4
