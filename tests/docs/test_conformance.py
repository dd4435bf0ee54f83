"""The page about the APIs is current, and no field of theirs is left out."""

from collections import Counter

import msgspec
import pytest

from ambit.ingest.gateway.features import FEATURES, Place, supported
from tests.docs import conformance

PAGE = conformance.ROOT / "docs/conformance.md"


def test_the_page_is_current(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(conformance.render())
    assert PAGE.read_text() == conformance.render(), "type `pytest tests/docs --update-golden`"


def test_every_field_is_handled_or_listed_with_a_reason() -> None:
    assert [f"{each.kind} {each.path} {each.text}" for each in conformance.unlisted()] == []


def test_a_field_that_nothing_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Less(msgspec.Struct):
        """Reads a HTTPRoute's rules, but for their filters."""

        class Spec(msgspec.Struct):
            class Rule(msgspec.Struct):
                name: str

            rules: tuple[Rule, ...]

        spec: Spec

    monkeypatch.setitem(conformance.KINDS, "HTTPRoute", Less)
    found = {each.path for each in conformance.unlisted()}
    assert {"spec.parentRefs", "spec.rules[].filters", "spec.rules[].matches"} <= found


def test_features_are_told_once_and_sorted() -> None:
    assert [name for name, count in Counter(each.name for each in FEATURES).items() if count > 1] == []
    for place in Place:
        assert list(supported(place)) == sorted(supported(place))
    assert {"Mesh", "HTTPRoute"} <= set(supported(Place.MESH))
