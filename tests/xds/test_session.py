"""Transcripts: what one client says, and what the server must answer."""

import pytest

from ambit.xds.events import Acknowledged, Asked, ProtocolViolation, Rejected, Released
from ambit.xds.frames import Request, Resource
from ambit.xds.session import ServerSession
from ambit.xds.store import Store

T, U = "type/T", "type/U"


def res(name, version="1", on_demand=False):
    return Resource(name=name, version=version, body=b"", on_demand=on_demand)


def holding(*resources, **options):
    store = Store()
    store.update(T, {resource.name: resource for resource in resources})
    return ServerSession(store, **options)


def ask(*names, drop=(), nonce="", error=None, kept=None, type_url=T):
    return Request(
        type_url=type_url,
        subscribe=names,
        unsubscribe=tuple(drop),
        nonce=nonce,
        error=error,
        initial_versions=kept or {},
    )


def offer(session, changed, removed=()):
    return session.notify(session.store.update(T, changed, removed))


def told(responses):
    """What was sent: `name@version` and `-name`."""
    return [
        " ".join([f"{each.name}@{each.version}" for each in response.resources])
        + "".join(f" -{name}" for name in response.removed)
        for response in responses
    ]


def test_an_empty_wildcard_is_answered():
    session = ServerSession()
    assert told(session.receive(ask())) == [""]
    assert told(session.receive(ask(nonce="1"))) == []


def test_a_wildcard_gets_all_but_on_demand_resources():
    session = holding(res("a"), res("b"), res("lazy", on_demand=True))
    assert told(session.receive(ask())) == ["a@1 b@1"]
    assert told(offer(session, {"lazy": res("lazy", "2", on_demand=True)})) == []
    assert told(session.receive(ask("lazy"))) == ["lazy@2"]
    assert told(offer(session, {"lazy": res("lazy", "3", on_demand=True), "c": res("c")})) == ["c@1 lazy@3"]


def test_an_explicit_wildcard_and_its_end():
    session = holding(res("a"))
    assert told(session.receive(ask("*"))) == ["a@1"]
    assert told(session.receive(ask("a", drop=["*"]))) == ["a@1"]
    assert told(offer(session, {"b": res("b"), "a": res("a", "2")})) == ["a@2"]


def test_subscribing_to_nothing_at_all():
    session = holding(res("a"))
    assert told(session.receive(ask("*", drop=["*"]))) == []
    assert told(session.receive(ask("a"))) == ["a@1"]


def test_unsubscribing_under_a_wildcard_tells_what_is_true():
    session = holding(res("a"), res("lazy", on_demand=True))
    session.receive(ask())
    session.receive(ask("a", "lazy"))
    assert told(session.receive(ask(drop=["a", "lazy"]))) == ["a@1 -lazy"]


def test_a_question_waits_for_its_answer():
    session = ServerSession()
    assert session.receive(ask("x", "y")) == []
    assert session.take_events() == [Asked(T, ("x", "y"))]
    assert session.unanswered(T) == {"x", "y"}
    assert told(offer(session, {"x": res("x", on_demand=True)})) == ["x@1"]
    assert session.unanswered(T) == {"y"}
    assert told(session.refuse(T, ["x", "y", "never-asked"])) == [" -y"]


def test_a_question_may_be_asked_again():
    session = holding(res("a"))
    assert told(session.receive(ask("a"))) == ["a@1"]
    assert told(session.receive(ask("a"))) == ["a@1"]


def test_a_withdrawn_question_is_not_answered():
    session = ServerSession()
    session.receive(ask("x"))
    session.receive(ask(drop=["x"]))
    assert session.take_events() == [Asked(T, ("x",)), Released(T, ("x",))]
    assert offer(session, {"x": res("x")}) == []


def test_reconnect_sends_only_the_difference():
    session = holding(res("same"), res("newer", "2"), res("new"))
    request = ask(kept={"same": "1", "newer": "1", "gone": "1"})
    assert told(session.receive(request)) == ["new@1 newer@2 -gone"]


def test_reconnect_of_a_named_subscription():
    session = holding(res("same"), res("newer", "2"))
    request = ask("same", "newer", "asked", kept={"same": "1", "newer": "1", "gone": "1"})
    assert told(session.receive(request)) == ["newer@2 -gone"]
    assert session.take_events() == [Asked(T, ("asked",))]


def test_on_demand_names_kept_over_a_reconnect_are_not_removed_unless_refused():
    session = ServerSession()
    assert told(session.receive(ask("*", "lazy", kept={"lazy": "1"}))) == [""]
    assert told(offer(session, {"lazy": res("lazy", "1", on_demand=True)})) == ["lazy@1"]


def test_acknowledgements_and_rejections():
    session = holding(res("a"))
    [first] = session.receive(ask())
    [second] = offer(session, {"a": res("a", "2")})
    session.receive(ask(nonce=first.nonce))
    session.receive(ask(nonce=second.nonce, error=""))
    assert session.take_events() == [Acknowledged(first), Rejected(second, "rejected without a reason")]
    status = session.status(T)
    assert (status.sent, status.acknowledged, status.unacknowledged) == (2, 2, 0)
    assert status.error == session.rejection(T, "a") == "rejected without a reason"
    [other] = offer(session, {"b": res("b")})
    session.receive(ask(nonce=other.nonce))
    assert session.rejection(T, "a"), "the acceptance of something else does not make it good"
    [third] = offer(session, {"a": res("a", "3")})
    session.receive(ask(nonce=third.nonce))
    assert session.status(T).error == session.rejection(T, "a") == ""
    assert session.status(T).acknowledged == 4


def test_answers_out_of_order_do_not_count_too_early():
    session = holding(res("a"))
    [first] = session.receive(ask())
    [second] = offer(session, {"b": res("b")})
    session.receive(ask(nonce=second.nonce))
    assert session.status(T).acknowledged == 0
    session.receive(ask(nonce=first.nonce))
    assert session.status(T).acknowledged == 2


def test_an_unknown_nonce_is_ignored_but_its_names_count():
    session = holding(res("a"))
    session.receive(ask("*", drop=["*"]))
    assert told(session.receive(ask("a", nonce="77"))) == ["a@1"]
    assert session.take_events() == []


def test_unchanged_content_is_not_sent():
    session = holding(res("a"))
    session.receive(ask())
    assert offer(session, {"a": res("a")}, ["never-there"]) == []


def test_changes_are_merged_while_a_client_is_slow():
    session = holding(res("a"), window=1)
    [first] = session.receive(ask())
    assert offer(session, {"a": res("a", "2"), "b": res("b")}) == []
    assert offer(session, {"a": res("a", "3")}, ["b"]) == []
    assert told(session.receive(ask(nonce=first.nonce))) == ["a@3 -b"]


def test_removals_come_after_what_refers_to_them_changed():
    store = Store()
    session = ServerSession(store)
    session.receive(ask(type_url=T))
    session.receive(ask(type_url=U))
    session.notify_all([store.update(T, {"t1": res("t1")}), store.update(U, {"u1": res("u1")})])
    changes = [store.update(T, {"t2": res("t2")}, ["t1"]), store.update(U, {"u2": res("u2")}, ["u1"])]
    assert told(session.notify_all(changes)) == ["t2@1", "u2@1 -u1", " -t1"]


def test_a_type_waits_for_its_prerequisite():
    session = holding(res("workload"), prerequisites={T: U})
    assert session.receive(ask(type_url=T)) == []
    session.store.update(U, {"policy": res("policy")})
    assert told(session.receive(ask(type_url=U))) == ["policy@1", "workload@1"]


def test_a_client_that_never_asks_for_the_prerequisite_can_be_released():
    session = holding(res("workload"), prerequisites={T: U})
    assert session.receive(ask(type_url=T)) == []
    assert told(session.release()) == ["workload@1"]


def test_workloads_do_not_overtake_policies_of_a_slow_client():
    store = Store()
    session = ServerSession(store, prerequisites={T: U}, window=1)
    [policies] = session.receive(ask(type_url=U))
    [workloads] = session.receive(ask(type_url=T))
    session.receive(ask(type_url=T, nonce=workloads.nonce))
    changes = [store.update(U, {"p": res("p")}), store.update(T, {"w": res("w")})]
    assert session.notify_all(changes) == []
    assert told(session.receive(ask(type_url=U, nonce=policies.nonce))) == ["p@1", "w@1"]


def test_limits():
    session = ServerSession(max_names=2, max_types=1)
    with pytest.raises(ProtocolViolation, match="2 names"):
        session.receive(ask("a", "b", "c"))
    with pytest.raises(ProtocolViolation, match="1 resource types"):
        session.receive(ask(type_url=U))


def test_one_by_one_a_rejection_concerns_one_resource():
    session = holding(res("a"), res("b"), res("c"), singly=[T], window=2)
    assert told(session.receive(ask("a", "b", "c"))) == ["a@1", "b@1"]
    assert told(session.receive(ask(nonce="1", error="no"))) == ["c@1"]
    assert (session.rejection(T, "a"), session.rejection(T, "b")) == ("no", "")
    session.receive(ask(nonce="2"))
    session.receive(ask(nonce="3"))
    assert told(offer(session, {"b": res("b", "2")}, ["a", "c"])) == ["b@2", " -a -c"]


def test_what_was_rejected_is_sent_again_when_that_may_help():
    session = holding(res("a"), res("b"))
    session.receive(ask())
    session.receive(ask(nonce="1", error="no"))
    assert told(offer(session, {}, ["a"])) == [" -a"]
    session.receive(ask(nonce="2"))
    assert session.status(T).error == "no"
    assert told(session.retry(T)) == ["b@1"]
    session.receive(ask(nonce="3"))
    assert session.status(T).error == ""
    assert told(session.retry(T)) == told(session.retry(U)) == []


def test_what_is_rejected_together_is_sent_again_one_by_one():
    session = holding(res("a"), res("b"), res("c"), isolate=True)
    session.receive(ask())
    assert told(session.receive(ask(nonce="1", error="b is bad"))) == ["a@1", "b@1", "c@1"]
    assert session.take_events() == [], "nobody is told before it is known which"
    assert session.is_isolating(T)
    session.receive(ask(nonce="2"))
    session.receive(ask(nonce="3", error="bad"))
    assert session.is_isolating(T)
    session.receive(ask(nonce="4"))
    assert not session.is_isolating(T)
    assert [type(each) for each in session.take_events()] == [Acknowledged, Rejected, Acknowledged]
    assert session.rejections(T) == {"b": "bad"}
    assert told(offer(session, {"a": res("a", "2"), "c": res("c", "2")})) == ["a@2 c@2"], "together again"


def test_a_removal_that_was_rejected_with_others_comes_again():
    session = holding(res("a"), res("b"), res("c"), isolate=True)
    session.receive(ask())
    session.receive(ask(nonce="1"))
    assert told(offer(session, {"a": res("a", "2"), "b": res("b", "2")}, ["c"])) == ["a@2 b@2 -c"]
    assert sorted(told(session.receive(ask(nonce="2", error="bad")))) == [" -c", "a@2", "b@2"]


def test_what_is_gone_or_newer_meanwhile_is_not_sent_as_it_was():
    session = holding(res("a"), res("b"), isolate=True, window=1)
    session.receive(ask())
    assert told(offer(session, {"a": res("a", "2")}, ["b"])) == []
    assert told(session.receive(ask(nonce="1", error="bad"))) == ["a@2", " -b"]
    session.receive(ask(nonce="2"))
    session.receive(ask(nonce="3"))
    assert not session.is_isolating(T)


def test_what_follows_another_resource_is_sent_again_with_it():
    """Only what the client has, after it, and once."""
    session = holding(res("a"), res("b"), followers={T: U})
    session.store.update(U, {"a": res("a"), "b": res("b")})
    assert told(session.receive(ask())) == ["a@1 b@1"]
    assert told(session.receive(ask("a", type_url=U))) == ["a@1"]
    sent = offer(session, {"a": res("a", "2"), "b": res("b", "2")})
    assert [each.type_url for each in sent] == [T, U]
    assert told(sent) == ["a@2 b@2", "a@1"]
    assert told(offer(session, {"b": res("b", "3")})) == ["b@3"]
    both = [session.store.update(T, {"a": res("a", "4")}), session.store.update(U, {"a": res("a", "4")})]
    assert told(session.notify_all(both)) == ["a@4", "a@4"]
    assert told(session.notify_all([session.store.update(U, {}, ["a"])])) == [" -a"]
    assert told(offer(session, {"a": res("a", "5")})) == ["a@5"]
