"""Authorization of requests compiled for Envoy: ordered rows for one port of a service.

Semantics are those of `ambit.policy.requests`. Where requests are read the rows are an extension (RBAC, by ECDS, so
that a change drains nothing); where they are not, they are asked when the tunnel is opened, before anybody is dialled:
what is for requests hits there as it harms most. At the edge, where there are no tunnels, the listener's matcher asks:
Envoy's network filter would ask after it has dialled, and let through what a server says first.

CUSTOM comes before: in the chain of filters there is a place for each authorizer that requests are shown to
(`ambit.envoy.http.authorizers`), and one that does nothing where there is none. A chain that has one place more or less
is another listener, whose former connections go on for a while by the chain that they came in by: what they could not
be shown is refused there. Where a pod's node reads requests, questions that it is itself asked so are refused, not
asked about: whoever is asked could be the pod itself, or ask it in turn, without end.

AUDIT is decided beside the dry run, whose name tells the rules (`http_rbac.with_audit`).
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import msgspec

from ambit.core.names import GONE_ROUND
from ambit.envoy import http_rbac, matchers, names
from ambit.envoy.http import authorization as http_authorization
from ambit.envoy.http import authorizers as http_authorizers
from ambit.envoy.http.authorization import Place
from ambit.envoy.l7.admission import Admission
from ambit.envoy.matchers import Predicate
from ambit.envoy.words import AnyMessage
from ambit.model.request_policy import Asked, RequestAction, RequestPolicy
from ambit.plan.authorization import NO_POLICY, REFUSED_BY_ENVOY, Row, denying
from ambit.plan.backends import Provider
from ambit.policy.decide import NO_ALLOW_MATCHED

Judge = tuple[Sequence[RequestPolicy], Place]
MOST_HOPS = 32
"""So many proxies may stand before a gateway. Each gateway adds its client to `x-forwarded-for`: a request that goes
round by ways which no object shows (a load balancer's address, a name in the DNS) would become thousands."""
_GONE_ROUND: tuple[Row, ...] = (
    (matchers.header("x-forwarded-for", rf"(?:[^,]*,){{{MOST_HOPS}}}\C*"), False, GONE_ROUND),
)
_MOST_TOGETHER = 64
"""Combinations of rules of AUDIT policies that are told apart; beyond, only the first rule that matches is told."""


def extension(name: str, policies: Sequence[RequestPolicy], place: Place) -> AnyMessage:
    """The RBAC extension `name`. Dry-run policies are decided beside, as if they were enforced."""
    rows, otherwise, beside = _decisions(policies, place)
    return http_rbac.extension(name, [*(_GONE_ROUND if place.is_edge else ()), *rows], otherwise, beside)


def of_all(name: str, judges: Sequence[Judge], before: Sequence[Row] = ()) -> AnyMessage:
    """As `extension`, where what one of `judges` denies is denied, after the rows `before`."""
    rows, otherwise = _rows_of_all([(_enforced(policies), place) for policies, place in judges])
    return http_rbac.extension(name, [*before, *rows], otherwise, _beside(judges))


def of_nobody(name: str, before: Sequence[Row]) -> AnyMessage:
    """As `of_all`, where nobody has a say any more."""
    return http_rbac.extension(name, before, (True, NO_POLICY))


def denials(policies: Sequence[RequestPolicy], place: Place) -> list[Row]:
    """Rows of what the policies deny, and of nothing else."""
    return denying(*_rows(_enforced(policies), place))


def refused(name: str) -> AnyMessage:
    """Stands for the extension `name` that Envoy did not take: no request gets in."""
    return http_rbac.extension(name, (), (False, REFUSED_BY_ENVOY))


class Showing(msgspec.Struct, frozen=True):
    """To whom requests to a port may have to be shown, in order; by the node of a pod, in its name."""

    authorizers: tuple[Asked, ...] = ()
    pod: str = ""

    @property
    def places(self) -> int:
        return max(1, len(self.authorizers))

    @property
    def providers(self) -> Iterator[Provider]:
        """What has to be called for that."""
        return map(_provider, self.authorizers)

    def cluster(self, asked: Asked) -> str:
        """By which somebody is asked."""
        provider = _provider(asked)
        return names.called_by(self.pod, provider.cluster) if self.pod else provider.cluster


def showing(policies: Iterable[RequestPolicy], pod: str = "") -> Showing:
    """What those of these policies come to that are CUSTOM; at this `pod`, if it is not at a proxy."""
    asked = {each.asked.authorizer.name: each.asked for each in _asking(policies) if each.asked is not None}
    return Showing(tuple(asked[name] for name in sorted(asked)), pod)


def places(subject: str, port: int, given: Showing, judges: Sequence[Judge]) -> Iterator[AnyMessage]:
    """The extensions `names.asks` of a port of this subject, for all who have a say."""
    rules = [
        (policy, predicate, name)
        for policies, place in judges
        for policy in _asking(policies)
        for predicate, name in _custom(policy, place)
    ]
    for index in range(given.places):
        rows = list(_shown(given, index, rules))
        if index == 0:
            rows = [*_closed(given, rules), *rows]
        yield http_authorizers.place(names.asks(subject, port, index), rows)


def refused_place(name: str) -> AnyMessage:
    """As `refused`, of an extension that shows requests to somebody."""
    return http_authorizers.place(name, [(True, http_authorizers.refusing(REFUSED_BY_ENVOY), "refused")])


_Rules = Sequence[tuple[RequestPolicy, Predicate, str]]
"""Rules of policies with what they hold for, and their names."""


def _asking(policies: Iterable[RequestPolicy]) -> list[RequestPolicy]:
    """Those that are CUSTOM, by key."""
    custom = (each for each in policies if each.action is RequestAction.CUSTOM and not each.dry_run)
    return sorted(custom, key=lambda each: each.key)


def _shown(given: Showing, index: int, rules: _Rules) -> Iterator[http_authorizers.Row]:
    """To the authorizer of this index."""
    if index >= len(given.authorizers):
        return
    asked = given.authorizers[index]
    asking = http_authorizers.asking(asked.authorizer, given.cluster(asked))
    for policy, predicate, name in rules:
        if policy.asked is not None and policy.asked.authorizer.name == asked.authorizer.name:
            yield predicate, asking, name


def _closed(given: Showing, rules: _Rules) -> Iterator[http_authorizers.Row]:
    """What nobody can be shown: there is nobody, or no place for him in the chain that the connection came in by; at a
    pod, what is a question itself."""
    elsewhere = matchers.negated(http_authorizers.has_places(given.places))
    first = given.authorizers[0].authorizer.name if given.authorizers else ""
    for policy, predicate, name in rules:
        refusing = http_authorizers.refusing(name)
        if policy.asked is None:
            yield predicate, refusing, name
            continue
        if given.pod:
            yield matchers.all_of([http_authorizers.is_question(), predicate]), refusing, name
        if policy.asked.authorizer.name != first:
            yield matchers.all_of([elsewhere, predicate]), refusing, name


def _custom(policy: RequestPolicy, place: Place) -> Iterator[tuple[Predicate, str]]:
    for index, rule in enumerate(policy.rules):
        yield http_authorization.predicate(rule, RequestAction.CUSTOM, place), f"{policy.key}[{index}]"


def _provider(asked: Asked) -> Provider:
    return Provider(asked.service, asked.authorizer.service.port, is_grpc=asked.authorizer.is_grpc)


def of_bytes(host: AnyMessage, policies: Sequence[RequestPolicy], place: Place) -> None:
    """Adds to a virtual host of tunnels who may pass."""
    http_rbac.of_host(host, *_decisions(policies, place))


def of_connections(policies: Sequence[RequestPolicy], place: Place) -> Admission:
    """What is decided about connections that nobody reads requests in. AUDIT tells of requests only."""
    telling = [each for each in policies if each.action is not RequestAction.AUDIT]
    rows, (allowed, name), dry_run = _decisions(telling, place)
    return Admission(tuple(rows), allowed, name, tuple(dry_run))


def _decisions(
    policies: Sequence[RequestPolicy], place: Place
) -> tuple[list[Row], tuple[bool, str], list[Row]]:
    """Rows, what holds without a match, and rows of the dry run."""
    return *_rows(_enforced(policies), place), _beside([(policies, place)])


def _enforced(policies: Iterable[RequestPolicy]) -> list[RequestPolicy]:
    return [policy for policy in policies if not policy.dry_run]


def _beside(judges: Sequence[Judge]) -> list[Row]:
    """What is told and not done: of dry runs, and by the names of rows of AUDIT."""
    audits = [
        (each, place)
        for policies, place in judges
        for each in _enforced(policies)
        if each.action is RequestAction.AUDIT and each.rules
    ]
    told: list[Row] = []
    if any(each.dry_run for policies, _ in judges for each in policies):
        rows, fallback = _rows_of_all(judges)
        told = [*rows, (True, *fallback)]
    elif audits:
        told = [(True, True, NO_POLICY)]
    return [
        (matchers.all_of([matched, predicate]), allow, http_rbac.with_audit(name, rules))
        for matched, rules in _audited(sorted(audits, key=lambda each: each[0].key))
        for predicate, allow, name in told
    ]


def _audited(
    policies: Sequence[tuple[RequestPolicy, Place]],
) -> Iterator[tuple[Predicate, tuple[str, ...]]]:
    """Which rules of AUDIT policies a request matches, tried in order: all that can be together, of each policy one.
    The last holds always."""
    if not policies:
        yield True, ()
        return
    (first, place), *others = policies
    if prod(len(each.rules) + 1 for each, _ in policies) > _MOST_TOGETHER:
        others = []
    rest = list(_audited(others))
    for index, rule in enumerate(first.rules):
        predicate = http_authorization.predicate(rule, RequestAction.AUDIT, place)
        for matched, rules in rest:
            named = dict.fromkeys((f"{first.key}[{index}]", *rules))
            yield matchers.all_of([predicate, matched]), tuple(named)
    yield from _audited(policies[1:]) if not others else rest


def _rows_of_all(judges: Sequence[Judge]) -> tuple[list[Row], tuple[bool, str]]:
    """Rows by which what one of them denies is denied; what the last one allows is allowed."""
    *others, last = judges
    rows, otherwise = _rows(*last)
    return [*(row for each in others for row in denying(*_rows(*each))), *rows], otherwise


def _rows(policies: Sequence[RequestPolicy], place: Place) -> tuple[list[Row], tuple[bool, str]]:
    rows: list[Row] = []
    in_order = sorted(policies, key=lambda policy: policy.key)
    # Bytes can be shown to nobody.
    first = () if place.is_http else (RequestAction.CUSTOM,)
    for action in (*first, RequestAction.DENY, RequestAction.ALLOW):
        rows += [
            (
                http_authorization.predicate(rule, action, place),
                action is RequestAction.ALLOW,
                f"{policy.key}[{index}]",
            )
            for policy in in_order
            if policy.action is action
            for index, rule in enumerate(policy.rules)
        ]
    allowing = [policy.key for policy in in_order if policy.action is RequestAction.ALLOW]
    if allowing:
        return rows, (False, allowing[0] if len(allowing) == 1 else NO_ALLOW_MATCHED)
    return rows, (True, NO_POLICY)
