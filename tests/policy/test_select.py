"""Which policies a destination is under (`ambit.policy.select`)."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Scope
from ambit.model.workload import Workload
from ambit.policy.decide import ConnectionFacts, Reason, decide
from ambit.policy.select import PolicyBook


def workload(namespace: str, *policies: str) -> Workload:
    identity = Identity("cluster.local", namespace, "default")
    return Workload(f"c//Pod/{namespace}/w", "w", namespace, identity, policies=policies)


def policy(key: str, scope: Scope, action: Action = Action.ALLOW) -> Authorization:
    namespace, name = key.split("/")
    return Authorization(name, namespace, scope, action)


BOOK = [
    policy("root/mesh", Scope.GLOBAL),
    policy("a/all", Scope.NAMESPACE),
    policy("b/all", Scope.NAMESPACE),
    policy("a/some", Scope.WORKLOAD_SELECTOR),
    policy("root/strict", Scope.WORKLOAD_SELECTOR),
]


def names(book: PolicyBook, of: Workload) -> list[str]:
    return [each.key for each in book.applies(of).policies]


def test_by_scope() -> None:
    book = PolicyBook(BOOK)
    assert names(book, workload("a")) == ["a/all", "root/mesh"]
    assert names(book, workload("a", "a/some", "root/strict")) == [
        "a/all",
        "a/some",
        "root/mesh",
        "root/strict",
    ]
    assert names(book, workload("c")) == ["root/mesh"]


def test_an_unknown_name_is_reported_and_denies() -> None:
    selection = PolicyBook(BOOK).applies(workload("c", "c/none"))
    assert selection.missing == ("c/none",)
    facts = ConnectionFacts(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2"), 80)
    assert decide(selection.policies, facts, selection.missing).reason is Reason.UNKNOWN_POLICY


def test_a_policy_that_changes_scope_leaves_the_old_one() -> None:
    book = PolicyBook(BOOK)
    book.set(policy("a/all", Scope.WORKLOAD_SELECTOR))
    assert names(book, workload("a")) == ["root/mesh"]
    book.remove("root/mesh")
    book.remove("root/mesh")
    assert names(book, workload("a")) == []


KEYS = st.sampled_from(["root/p", "a/p", "a/q", "b/p"])


@given(st.lists(st.tuples(KEYS, st.sampled_from([None, *Scope])), max_size=12))
def test_kept_current_equals_built_anew(events: list[tuple[str, Scope | None]]) -> None:
    book = PolicyBook()
    last: dict[str, Authorization] = {}
    for key, scope in events:
        last.pop(key, None)
        if scope is None:
            book.remove(key)
        else:
            last[key] = policy(key, scope)
            book.set(last[key])
    for of in (workload("a", "a/p"), workload("b"), workload("root", "b/p")):
        assert book.applies(of) == PolicyBook(last.values()).applies(of)
