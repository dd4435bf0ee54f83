"""Who may see a ServiceEntry. The golden case `entry_visibility` shows a whole mesh."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.selector import Selector
from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.ingest.visibility import EntryVisibility, VisibilityPolicy, exported, narrower
from ambit.model.service import Visibility
from ambit.objects.decoding import PROJECTIONS
from tests.ingest.istio.test_service_entry import ENTRIES, entry
from tests.ingest.test_mesh import Change, change

PUBLIC, NAMESPACE = Visibility.PUBLIC, Visibility.NAMESPACE
REACHES = [PUBLIC, NAMESPACE, None]


def test_the_first_policy_counts_all_of_whose_selectors_match() -> None:
    a, b = Selector({"a": "1"}), Selector({"b": "1"})
    said = EntryVisibility(
        NAMESPACE,
        (VisibilityPolicy(None, (a, b)), VisibilityPolicy(PUBLIC, (a,)), VisibilityPolicy(NAMESPACE, (a,))),
    )
    assert said.of({"a": "1", "b": "1"}) is None
    assert said.of({"a": "1"}) is PUBLIC
    assert said.of({"b": "1"}) is NAMESPACE
    assert EntryVisibility(None, (VisibilityPolicy(PUBLIC),)).of({}) is PUBLIC, "without rules it matches"


@given(st.sampled_from(REACHES), st.sampled_from(REACHES))
def test_the_narrower_of_both_counts(one: Visibility | None, other: Visibility | None) -> None:
    assert REACHES.index(narrower(one, other)) == max(REACHES.index(one), REACHES.index(other))


@pytest.mark.parametrize(
    ("export_to", "allowed", "expected"),
    [
        ([], NAMESPACE, NAMESPACE),
        (["*"], NAMESPACE, NAMESPACE),
        ([".", "other"], NAMESPACE, NAMESPACE),
        (["."], PUBLIC, NAMESPACE),
        (["~"], PUBLIC, None),
        (["*"], None, None),
    ],
)
def test_settings_never_widen_what_an_entry_says(
    export_to: list[str], allowed: Visibility | None, expected: Visibility | None
) -> None:
    compiler = MeshCompiler(MeshSettings(entry_visibility=EntryVisibility(allowed)))
    given = entry("a", "x.test", addresses=["192.0.2.1"], exportTo=export_to)
    compiler.apply([given])
    assert narrower(exported(given.value), allowed) is expected
    made = compiler.services.get("default/x.test")
    assert (made.visibility if made else None) is expected
    assert not compiler.findings


def test_what_nobody_sees_takes_no_host_in_its_namespace_either() -> None:
    compiler = MeshCompiler(MeshSettings())
    compiler.apply(
        [
            entry("old", "x.test", addresses=["192.0.2.1"], exportTo=["~"]),
            entry("new", "x.test", addresses=["192.0.2.2"], created="2026-02-01T00:00:00Z"),
        ]
    )
    assert str(compiler.services["default/x.test"].addresses[0].address) == "192.0.2.2"
    assert compiler.services["default/x.test"].canonical and not compiler.findings


def test_of_those_that_everybody_sees_the_oldest_is_canonical() -> None:
    compiler = MeshCompiler(MeshSettings())
    compiler.apply(
        [
            entry("a", "x.test", namespace="hidden", exportTo=["."]),
            entry("a", "x.test", namespace="early", created="2026-02-01T00:00:00Z"),
            entry("a", "x.test", namespace="late", created="2026-03-01T00:00:00Z"),
        ]
    )
    canonical = {each.namespace: each.canonical for each in compiler.services.values()}
    assert (canonical["early"], canonical["late"]) == (True, False)


def test_an_entry_whose_namespace_is_not_known_yet_has_the_default() -> None:
    said = EntryVisibility(None, (VisibilityPolicy(PUBLIC, (Selector({"team": "edge"}),)),))
    compiler = MeshCompiler(MeshSettings(entry_visibility=said))
    compiler.apply([entry("a", "x.test", addresses=["192.0.2.1"])])
    assert not compiler.services
    compiler.apply([change(("namespaces", {"metadata": {"name": "default", "labels": {"team": "edge"}}}))])
    assert compiler.services["default/x.test"].visibility is PUBLIC


def with_condition(kind: str) -> Change:
    value = {
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"hosts": ["x.test"]},
        "status": {"conditions": [{"type": kind, "status": "True"}]},
    }
    return Change(ENTRIES, "default/a", PROJECTIONS[ENTRIES].decode(json.dumps(value).encode()))


def test_a_condition_of_former_settings_is_taken_back() -> None:
    compiler = MeshCompiler(MeshSettings())
    compiler.apply([with_condition("istio.io/VisibilityApplied")])
    (status,) = compiler.statuses.values()
    assert status.conditions == ()  # type: ignore[union-attr]
    compiler.apply([with_condition("Other")])
    assert not compiler.statuses
