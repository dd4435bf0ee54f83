"""Joining what several replicas know of their nodes."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ambit.control.answers import (
    BATCHES,
    Answer,
    Group,
    History,
    Progress,
    Refusal,
    Report,
    Standing,
    decode,
    encode,
    joined,
    report_of,
    with_routes,
)
from ambit.core.finding import ObjectRef

POLICY, PEER = "AuthorizationPolicy", "PeerAuthentication"


def history(*batches):
    made = History()
    for versions, revisions in batches:
        made.add(versions, revisions)
    return made


def test_a_node_has_what_is_in_the_newest_batch_it_acknowledged_with_every_type():
    known = history(({POLICY: 10, PEER: 7}, {"a": 1, "b": 1}), ({POLICY: 12, PEER: 7}, {"a": 2, "b": 2}))
    assert known.seen({"a": 2, "b": 2}) == {POLICY: 12, PEER: 7}
    assert known.seen({"a": 5, "b": 1}) == {POLICY: 10, PEER: 7}
    assert known.seen({"a": 0, "b": 2}) == {}
    assert known.seen({"a": 2}) == {}
    assert history().seen({"a": 9}) == {}


def test_a_version_that_nodes_are_sent_nothing_for_is_theirs_at_once():
    known = history(({POLICY: 10}, {"a": 1}), ({POLICY: 11}, {"a": 1}))
    assert known.seen({"a": 1}) == {POLICY: 11}


def test_who_is_behind_all_that_is_remembered_has_nothing():
    known = history(*(({POLICY: number}, {"a": number}) for number in range(BATCHES + 5)))
    assert known.seen({"a": 4}) == {}
    assert known.seen({"a": 5}) == {POLICY: 5}


def test_a_report_answers_for_each_of_its_nodes():
    known = history(({POLICY: 10}, {"a": 1}), ({POLICY: 12}, {"a": 2}))
    report = report_of(
        [Standing("n1", {"a": 2}), Standing("n2", {"a": 1}), Standing("n3", {"a": 2}, {"shop/bad": "why"})],
        known,
    )
    told = decode(encode(report))
    assert told == report
    bad = {each.node: each for each in told.answers(POLICY, 12, ["shop/bad"])}
    assert bad == {"n1": Answer("n1"), "n2": Answer("n2", behind=True), "n3": Answer("n3", error="why")}
    other = {each.node: each for each in told.answers(POLICY, 10, ["shop/good"])}
    assert other == {name: Answer(name) for name in ("n1", "n2", "n3")}
    assert all(each.behind for each in told.answers(PEER, 1, ())), "nothing is known of that kind"


def test_of_two_agents_on_a_node_the_one_that_lags_counts():
    known = history(({POLICY: 10, PEER: 1}, {"a": 1}), ({POLICY: 12, PEER: 2}, {"a": 2}))
    for order in (1, -1):
        streams = [Standing("n1", {"a": 2}), Standing("n1", {"a": 1})][::order]
        assert report_of(streams, known).groups == (Group(("n1",), {POLICY: 10, PEER: 1}),)
    assert report_of([Standing("n1", {"a": 2}), Standing("n1", {})], known).groups == (Group(("n1",), {}),)


def test_replicas_are_joined():
    both = [Answer("n1"), Answer("n2", behind=True), Answer("n3", error="why")]
    assert joined(both, ["n1", "n4"]) == Progress(4, ("n2", "n4 (not connected)"), ("n3 (why)",))
    assert joined([Answer("n1"), Answer("n1", behind=True)]) == Progress(1, ("n1",))
    assert joined([Answer("n1"), Answer("n2")], ["n1", "n2"]) == Progress(2)
    assert joined([]) == Progress(0)


def test_a_report_that_would_be_too_long_leaves_whole_nodes_out():
    nodes = tuple(f"node-{number:04}" for number in range(1000))
    report = Report((Group(nodes, {POLICY: 3}),), (Refusal(nodes[:10], ("shop/bad",), "x" * 200),))
    text = encode(report, 5000)
    assert 0 < len(text) <= 5000
    told = list(decode(text).answers(POLICY, 3, ["shop/bad"]))
    assert len(told) > 100
    assert {each.node for each in told} <= set(nodes[10:]), (
        "those with a rejection go first, not the rejection"
    )
    assert encode(report, 10) == ""
    assert encode(Report()) == ""


def test_what_cannot_be_read_says_nothing():
    for text in ("", "nonsense", "[]", '{"groups": 3}', "\ud800"):
        assert decode(text) == Report()


REVISIONS = st.dictionaries(st.sampled_from("ab"), st.integers(-1, 6))


@given(
    st.lists(
        st.builds(
            Standing,
            st.sampled_from(["n1", "n2", "n3"]),
            REVISIONS,
            st.dictionaries(st.sampled_from(["p", "q"]), st.sampled_from(["why", "so"])),
        )
    ),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=5),
    st.integers(0, 12),
    st.integers(0, 400),
)
def test_nobody_is_said_to_have_what_one_of_its_streams_has_not(standings, steps, version, limit):
    known, batches = History(), []
    versions, revisions = 0, {"a": 0, "b": 0}
    for seen, first, second in steps:
        versions += seen
        revisions = {"a": revisions["a"] + first, "b": revisions["b"] + second}
        known.add({POLICY: versions}, revisions)
        batches.append((versions, revisions))
    told = list(decode(encode(report_of(standings, known), limit)).answers(POLICY, version, ["p"]))
    for answer in told:
        own = [each for each in standings if each.node == answer.node]
        assert own
        assert bool(answer.error) == any("p" in each.rejected for each in own)
        if not answer.behind:
            held = [new for new, wanted in batches if new >= version and all(
                each.acknowledged.get(kind, -1) >= number for each in own for kind, number in wanted.items()
            )]  # fmt: skip
            assert held
    assert len({each.node for each in told}) == len(told)
    assert len(msgspec.json.encode(report_of(standings, known))) > limit or {each.node for each in told} == {
        each.node for each in standings
    }


def test_routes_that_proxies_refused_are_told_beside_nodes_and_without_any():
    refused = {ObjectRef("HTTPRoute", "shop", f"r{number}"): "no good" * 100 for number in range(1000)}
    for groups in ((), (Group(("n1",)),)):
        told = decode(encode(with_routes(Report(groups), refused)))
        assert told.groups == groups and len(told.routes) == 100
        assert (
            told.routes["HTTPRoute shop/r0"].startswith("no good")
            and len(told.routes["HTTPRoute shop/r0"]) == 300
        )
    assert encode(with_routes(Report(), {})) == ""
