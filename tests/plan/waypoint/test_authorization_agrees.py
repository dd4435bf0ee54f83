"""For random policies and requests a waypoint's Envoy decides as `ambit.policy.requests` does, and so do the Envoys of
nodes where there is no proxy between."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.model.jwt import Target
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, Suffix
from ambit.model.request_policy import (
    Attribute,
    Clause,
    Condition,
    Match,
    PathTemplate,
    RequestAction,
    RequestPolicy,
    Rule,
    Value,
)
from ambit.policy.requests import Request, RequestFacts, decide_request
from tests.plan.waypoint.conftest import PORT, WEB, Scene
from tests.soak import fuzz, long

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

A = Attribute
PATHS = ("/", "/a", "/a/b", "/a//b", "/b/a", "/a%2Fb", "/a;x", "/a/..;/b", "/b;/a", "/a/b?c=/d", "/%2561")
HOSTS = ("web", "WEB", "web:81", "web.", "a.web", "other")
METHODS = ("GET", "POST", "PUT")
HEADERS = (None, "1", "2", "1, 2", "1,1", "12")
REMOTES = (None, "192.0.2.1", "192.0.2.9")


def texts(*values: str) -> st.SearchStrategy[Value]:
    exact = [Exact(each) for each in values]
    prefixes = [Prefix(each[:2]) for each in values]
    suffixes = [Suffix(each[-2:]) for each in values]
    return st.sampled_from([*exact, *prefixes, *suffixes, Presence()])


NETWORKS = ("192.0.2.0/29", "10.77.0.0/16", "fd00::/8", "10.96.1.1/32", "10.96.1.0/24")
VALUES: dict[Attribute, st.SearchStrategy[Any]] = {
    A.PRINCIPAL: texts("cluster.local/ns/default/sa/client", "cluster.local/ns/default/sa/other"),
    A.NAMESPACE: texts("default", "other"),
    A.TRUST_DOMAIN: texts("cluster.local", "other"),
    A.SERVICE_ACCOUNT: st.sampled_from(
        [ServiceAccountMatch("default", each) for each in ("client", "other")]
    ),
    **{
        attribute: st.sampled_from([ipaddress.ip_network(each) for each in NETWORKS])
        for attribute in (A.SOURCE_IP, A.REMOTE_IP, A.DESTINATION_IP)
    },
    A.PORT: st.sampled_from([PORT, PORT + 1]),
    A.HOST: texts("web", "a.web", "web:81"),
    A.METHOD: texts(*METHODS, "get"),
    A.PATH: texts("/a", "/a/b", "/b/a", "/a/")
    | st.sampled_from([PathTemplate("/{*}"), PathTemplate("/a/{**}")]),
    A.HEADER: texts("1", "12"),
    A.CLAIM: texts("1"),
    A.REQUEST_PRINCIPAL: texts("a/b"),
    A.UNSEEN: texts("1"),
}
NAMES = {A.HEADER: ("x-a",), A.CLAIM: ("aud",), A.UNSEEN: ("connection.sni",)}


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    attribute = draw(st.sampled_from(list(VALUES)))
    values = st.lists(VALUES[attribute], max_size=2, unique=True).map(tuple)
    wanted, unwanted = draw(values), draw(values)
    return Condition(attribute, wanted, unwanted, NAMES.get(attribute, ()))


matches = st.lists(conditions(), max_size=2).map(lambda found: Match(tuple(found)))
clauses = st.lists(matches, max_size=2).map(lambda found: Clause(tuple(found)))
rules = st.lists(clauses, max_size=2).map(lambda found: Rule(tuple(found)))
policies = st.lists(
    st.tuples(
        st.sampled_from([RequestAction.ALLOW, RequestAction.DENY]), st.lists(rules, max_size=2), st.booleans()
    ),
    min_size=1,
    max_size=3,
).map(
    lambda given: tuple(
        RequestPolicy(f"p{i}", "default", action, (Target("Service", "default", "web"),), tuple(found), dry)
        for i, (action, found, dry) in enumerate(given)
    )
)
requests = st.tuples(
    st.sampled_from(["client", "other", "v2"]),
    st.sampled_from(METHODS),
    st.sampled_from(HOSTS),
    st.sampled_from(PATHS),
    st.sampled_from(HEADERS),
    st.sampled_from(REMOTES),
)


@pytest.mark.soak
@pytest.mark.timeout(long(600, 3600))
@given(policies=policies, requests=st.lists(requests, min_size=4, max_size=8, unique=True))
@fuzz(8)
def test_envoy_decides_as_the_reference(
    scene: Scene, policies: tuple[RequestPolicy, ...], requests: list[tuple[str, str, str, str, Any, Any]]
) -> None:
    scene.bind(authorization=policies)
    for who, method, host, path, header, remote in requests:
        pod = scene.mesh.pods[who]
        headers = {"x_a": header} if header is not None else {}
        forwarded = {"x_forwarded_for": remote} if remote is not None else {}
        answer = scene.get(path, source=pod, method=method, host=host, **headers, **forwarded)
        facts = RequestFacts(
            source=next(each for each in pod.workload.addresses if each.version == 4),
            port=PORT,
            destination=WEB.addresses[0].address,
            identity=pod.workload.identity,
            remote=ipaddress.ip_address(remote) if remote is not None else None,
            request=Request(method, host, path, {"x-a": header} if header is not None else {}),
        )
        decision = decide_request(policies, facts).decision
        assert answer.status == (200 if decision.allowed else 403), (who, method, host, path, header, remote)
