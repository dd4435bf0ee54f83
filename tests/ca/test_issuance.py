import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.ca.issuance import Caller, PodFacts, check_caller, may_issue
from ambit.ca.limit import RateLimit
from ambit.core.identity import Identity, TrustDomains

AGENTS = frozenset({("ambit-system", "ambit-node")})
AGENT = Caller("ambit-system", "ambit-node", "ambit-node-x", "uid-agent", "node1")
AGENT_POD = PodFacts("ambit-system", "ambit-node", "node1", "uid-agent")
WEB = Identity("cluster.local", "shop", "web")
POD = PodFacts("shop", "web", "node1", "uid-web", enrolled=True)


def ask(caller=AGENT, identity=WEB, pods=(POD,)):
    return may_issue(
        caller,
        identity,
        pods,
        trust_domains=TrustDomains("cluster.local", ("old.example",)),
        node_accounts=AGENTS,
    )


def test_a_node_gets_the_identity_of_its_pod():
    assert ask() is None


@pytest.mark.parametrize(
    "pod",
    [
        PodFacts("shop", "web", "node2", enrolled=True),
        PodFacts("shop", "web", "node1", enrolled=False),
        PodFacts("shop", "web", "node1", enrolled=True, finished=True),
        PodFacts("shop", "other", "node1", enrolled=True),
        PodFacts("other", "web", "node1", enrolled=True),
    ],
)
def test_a_node_gets_nothing_else(pod):
    assert "no enrolled pod" in ask(pods=(pod,))
    assert ask(pods=(pod, POD)) is None


def test_a_node_without_a_known_node_gets_nothing():
    nowhere = Caller("ambit-system", "ambit-node")
    pod = PodFacts("shop", "web", "", enrolled=True)
    assert "not known" in ask(nowhere, pods=(pod,))


def test_other_trust_domains_are_refused():
    assert "trust domain" in ask(identity=Identity("evil", "shop", "web"))
    assert ask(identity=Identity("old.example", "shop", "web")) is None, "an alias is ours"


def test_others_get_only_themselves():
    web = Caller("shop", "web", "web-0", "uid-web", "node1")
    assert ask(web) is None
    assert "only its own" in ask(web, Identity("cluster.local", "shop", "db"))
    assert "only its own" in ask(Caller("shop", "ambit-node", "p", "u", "node1"))


@pytest.mark.parametrize(
    ("reason", "caller", "pod"),
    [
        ("not bound", Caller("ambit-system", "ambit-node"), AGENT_POD),
        ("does not exist", AGENT, None),
        ("does not exist", AGENT, PodFacts("ambit-system", "ambit-node", "node1", "another-uid")),
        ("ended", AGENT, PodFacts("ambit-system", "ambit-node", "node1", "uid-agent", finished=True)),
        ("another service account", AGENT, PodFacts("ambit-system", "x", "node1", "uid-agent")),
        ("runs on", AGENT, PodFacts("ambit-system", "ambit-node", "node2", "uid-agent")),
    ],
)
def test_callers_without_their_pod(reason, caller, pod):
    assert reason in (check_caller(caller, pod) or "")


def test_a_caller_with_its_pod():
    assert check_caller(AGENT, AGENT_POD) is None


@given(st.lists(st.floats(0, 5), max_size=60))
def test_the_limit_is_kept(steps):
    limit, now, allowed = RateLimit(rate=2, burst=5), 0.0, 0
    for step in steps:
        now += step
        allowed += limit.allow("node1", now)
    assert allowed <= 5 + 2 * now + 1e-6
    assert limit.allow("node2", now)
