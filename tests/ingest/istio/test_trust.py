"""Trust domains in policies: aliases mean the same, and a trust domain is told by the principal."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.finding import Level
from ambit.core.identity import Identity, TrustDomains
from ambit.ingest.istio.authorization import authorization
from ambit.ingest.istio.trust import equated, within
from ambit.ingest.settings import MeshSettings
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Prefix,
    Presence,
    Rule,
    Scope,
    StringMatch,
    Suffix,
)
from ambit.policy.decide import ConnectionFacts, decide
from tests.ingest.istio.test_authorization import decoded

DOMAINS = TrustDomains("new.example", ("old.example", "older"))
FOREIGN = "example"
"""Ends and begins as one of ours does, and is another."""
IDENTITIES = [
    Identity(domain, namespace, account)
    for domain in (*DOMAINS, FOREIGN, "new.example.org")
    for namespace in ("a", "b")
    for account in ("web", "job")
]
patterns = st.one_of(
    st.just(Presence()),
    st.builds(
        lambda identity, cut, form: {
            "exact": Exact(identity.principal),
            "prefix": Prefix(identity.principal[:cut]),
            "suffix": Suffix(identity.principal[cut:]),
        }[form],
        st.sampled_from(IDENTITIES),
        st.integers(0, 26),
        st.sampled_from(["exact", "prefix", "suffix"]),
    ),
)


def holds(wanted: tuple[StringMatch, ...], identity: Identity | None) -> bool:
    """Whether one of the patterns does; of no pattern none does."""
    rule = Rule((Clause((Match(principals=wanted),)),) if wanted else (Clause((Match(),)),))
    policy = Authorization("p", "n", Scope.NAMESPACE, Action.ALLOW, (rule,))
    address = ipaddress.ip_address("10.0.0.1")
    return decide([policy], ConnectionFacts(address, address, 80, identity)).allowed


@given(patterns, st.sampled_from(IDENTITIES))
def test_a_pattern_holds_under_each_trust_domain_of_the_mesh_or_under_none(
    pattern: StringMatch, identity: Identity
) -> None:
    wanted = any(holds((pattern,), form) for form in DOMAINS.forms(identity))
    assert holds(equated((pattern,), DOMAINS), identity) is wanted


@given(st.lists(patterns, max_size=3), st.lists(patterns, max_size=2), st.sampled_from([*IDENTITIES, None]))
def test_within_is_both_or_says_that_it_cannot(
    principals: list[StringMatch], domains: list[StringMatch], identity: Identity | None
) -> None:
    for_domains = tuple(
        Prefix(each.value.partition("/")[0] + "/") if isinstance(each, Exact) else each for each in domains
    )
    both = within(tuple(principals), for_domains)
    if both is None:
        assert any(isinstance(each, Suffix) for each in (*principals, *for_domains))
    elif principals or for_domains:
        each_holds = [holds(part, identity) for part in (tuple(principals), for_domains) if part]
        assert holds(both, identity) is all(each_holds)


def test_without_aliases_a_policy_stays_as_it_is() -> None:
    given = (Exact("cluster.local/ns/a/sa/web"), Suffix("/sa/web"), Prefix("cluster.local/"))
    assert equated(given, TrustDomains("cluster.local")) == given
    assert equated((Exact("other/ns/a/sa/web"),), DOMAINS) == (Exact("other/ns/a/sa/web"),)


SETTINGS = MeshSettings(trust_domain="new.example", trust_domain_aliases=("old.example",))
OLD, NEW = (Identity(domain, "a", "web") for domain in ("old.example", "new.example"))
OTHER = Identity("other.example", "a", "web")


def allowed(identity: Identity | None, rule: dict[str, Any], action: str = "ALLOW") -> bool:
    result = authorization(decoded(action=action, rules=[rule]), SETTINGS)
    assert result.authorization is not None and not result.findings, result.findings
    address = ipaddress.ip_address("10.0.0.1")
    return decide([result.authorization], ConnectionFacts(address, address, 80, identity)).allowed


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


ALIASES = ({"principals": ["old.example/ns/a/sa/web"]}, {"trustDomains": ["old.example"]})


@pytest.mark.feature("N52")
@pytest.mark.parametrize("fields", ALIASES)
def test_a_policy_that_names_the_old_trust_domain_means_the_new_one_too(fields: dict[str, list[str]]) -> None:
    assert [allowed(each, source(**fields)) for each in (OLD, NEW, OTHER, None)] == [True, True, False, False]
    denied = [not allowed(each, source(**fields), "DENY") for each in (OLD, NEW, OTHER, None)]
    assert denied == [True, True, False, False]
    excluded = {f"not{name[0].upper()}{name[1:]}": values for name, values in fields.items()}
    assert [allowed(each, source(**excluded)) for each in (OLD, NEW, OTHER, None)] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (source(trustDomains=["other.example"]), [OTHER]),
        (source(trustDomains=["other*"]), [OTHER]),
        (source(trustDomains=["*"]), [OLD, NEW, OTHER]),
        (source(notTrustDomains=["other.example"]), [OLD, NEW, None]),
        (source(trustDomains=["other.example"], principals=["*"]), [OTHER]),
        (source(trustDomains=["other.example"], principals=["other.example/ns/a/*"]), [OTHER]),
        (source(trustDomains=["other.example"], principals=["old.example/ns/a/sa/web"]), []),
        (source(trustDomains=["other.example"], namespaces=["b"]), []),
        ({"when": [{"key": "source.trustDomain", "values": ["other.example"]}]}, [OTHER]),
        ({"when": [{"key": "source.trustDomain", "notValues": ["old.example"]}]}, [OTHER, None]),
        ({"when": [{"key": "source.serviceAccount", "values": ["a/web"]}]}, [OLD, NEW, OTHER]),
        ({"when": [{"key": "source.serviceAccount", "notValues": ["a/web"]}]}, [None]),
        ({"when": [{"key": "source.principal", "values": ["old.example/ns/a/sa/web"]}]}, [OLD, NEW]),
    ],
)
def test_what_tells_who_the_peer_is(rule: dict[str, Any], wanted: list[Identity | None]) -> None:
    assert [each for each in (OLD, NEW, OTHER, None) if allowed(each, rule)] == wanted


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (source(trustDomains=["*.example"]), "trustDomains"),
        (source(notTrustDomains=["*.example"]), "notTrustDomains"),
        (source(trustDomains=["old.example"], principals=["*/sa/web"]), "trustDomains"),
        ({"when": [{"key": "source.trustDomain", "values": ["*.example"]}]}, "source.trustDomain"),
    ],
)
def test_what_no_pattern_says_closes_its_rule(rule: dict[str, Any], named: str) -> None:
    for action in ("ALLOW", "DENY"):
        result = authorization(decoded(action=action, rules=[rule]), SETTINGS)
        assert result.authorization is not None
        [finding] = result.findings
        assert (finding.level, finding.path) == (Level.WARNING, "spec.rules[0]")
        assert f" {named};" in finding.text
        address = ipaddress.ip_address("10.0.0.1")
        for each in (OLD, NEW, OTHER):
            facts = ConnectionFacts(address, address, 80, each)
            assert not decide([result.authorization], facts).allowed


def test_a_trust_domain_is_no_path() -> None:
    result = authorization(decoded(rules=[source(trustDomains=["old.example/ns/a"])]), SETTINGS)
    assert [(each.code, each.level) for each in result.findings] == [("AMB0213", Level.ERROR)]
    assert result.authorization is not None and not result.authorization.rules
