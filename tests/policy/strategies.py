"""Hypothesis strategies for policies and connections, from one small vocabulary so that they often meet.

Values are drawn by a seeded `random.Random`, evenly: Hypothesis' own choices cluster so much that some fields would
hardly ever decide. The price is that failures do not shrink, so cases are small to begin with.

Also for tests that ask a real proxy the same questions: every value here can be set up there. That each field and
operator decides often enough is checked in `test_strategies.py`.
"""

import ipaddress
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from ambit.core.identity import Identity, TrustDomains
from ambit.ingest.istio.trust import equated
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
    ServiceAccountMatch,
    StringMatch,
    Suffix,
)
from ambit.policy.decide import ConnectionFacts

T = TypeVar("T")

NAMESPACES = ("team-a", "team-b")
ACCOUNTS = ("web", "job")
TRUST_DOMAINS = TrustDomains("cluster.local", ("old.example",))
IDENTITIES = (
    *(Identity("cluster.local", ns, sa) for ns in NAMESPACES for sa in ACCOUNTS),
    Identity("old.example", "team-a", "web"),
)
SOURCES = tuple(map(ipaddress.ip_address, ("10.0.0.5", "10.0.1.7", "fd00::5", "fd01::7")))
DESTINATIONS = tuple(map(ipaddress.ip_address, ("10.1.0.2", "10.1.9.9", "fd00:1::2")))
PORTS = (80, 443, 8080)
NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.5/32", "10.0.0.0/23", "0.0.0.0/0", "::/0", "fd00::/16", "fd01::7/128"),
    )
)
DESTINATION_NETWORKS = tuple(
    map(ipaddress.ip_network, ("10.1.0.2/32", "10.1.0.0/16", "10.1.8.0/21", "fd00:1::/32", "::/0"))
)


Draw = Callable[[Random], Any]


def string_match(random: Random, values: Sequence[str]) -> StringMatch:
    """All four operators, cut from real values so that they hit and miss."""
    value = random.choice(values)
    cut = random.randint(0, len(value))
    return random.choice([Exact(value), Prefix(value[:cut]), Suffix(value[cut:]), Presence()])


_PRINCIPALS = [identity.principal for identity in IDENTITIES]
_VALUES: dict[str, Draw] = {
    "namespaces": lambda random: string_match(random, NAMESPACES),
    "principals": lambda random: string_match(random, _PRINCIPALS),
    "source_ips": lambda random: random.choice(NETWORKS),
    "destination_ips": lambda random: random.choice(DESTINATION_NETWORKS),
    "destination_ports": lambda random: random.choice(PORTS),
    "service_accounts": lambda random: ServiceAccountMatch(
        random.choice(NAMESPACES), random.choice(ACCOUNTS)
    ),
}
FIELDS: dict[str, Draw] = {**_VALUES, **{f"not_{name}": draw for name, draw in _VALUES.items()}}
"""Every field of a match, with how to draw a value for it."""


def few(random: Random, most: int, draw: Callable[[Random], T]) -> tuple[T, ...]:
    """One to `most` values; none at all, which always has a meaning of its own, only now and then."""
    size = 0 if random.random() < 0.04 else random.randint(1, most)
    return tuple(draw(random) for _ in range(size))


def random_match(random: Random) -> Match:
    names = few(random, 2, lambda random: random.choice(sorted(FIELDS)))
    drawn = {name: few(random, 2, FIELDS[name]) for name in names}
    for name in {"principals", "not_principals"} & drawn.keys():
        if random.random() < 0.5:
            drawn[name] = equated(drawn[name], TRUST_DOMAINS)
    return Match(**drawn)


def random_rule(random: Random) -> Rule:
    return Rule(few(random, 2, lambda random: Clause(few(random, 2, random_match))))


def random_policy(random: Random, name: str) -> Authorization:
    return Authorization(
        name=name,
        namespace=random.choice(NAMESPACES),
        scope=random.choice(list(Scope)),
        action=random.choice(list(Action)),
        rules=few(random, 2, random_rule),
        dry_run=random.random() < 0.1,
    )


def random_policies(random: Random) -> tuple[Authorization, ...]:
    """One to three policies of different names."""
    return tuple(random_policy(random, f"policy-{i}") for i in range(random.choice([1, 1, 2, 2, 3])))


def random_facts(random: Random) -> ConnectionFacts:
    return ConnectionFacts(
        source=random.choice(SOURCES),
        destination=random.choice(DESTINATIONS),
        destination_port=random.choice(PORTS),
        identity=random.choice([*IDENTITIES, None]),
    )


_RANDOM = st.randoms(use_true_random=True)

policies: st.SearchStrategy[Authorization] = _RANDOM.map(lambda random: random_policy(random, "policy"))
policy_sets: st.SearchStrategy[tuple[Authorization, ...]] = _RANDOM.map(random_policies)
facts: st.SearchStrategy[ConnectionFacts] = _RANDOM.map(random_facts)
