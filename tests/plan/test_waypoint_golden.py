"""What the Envoy of a waypoint gets, as text. (That Envoy accepts it: `tests/plan/waypoint/test_ways.py`.)"""

import ipaddress
from pathlib import Path

import msgspec
import pytest

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.http.jwt import NOBODYS_KEY
from ambit.model.http import (
    Action,
    Backend,
    Cors,
    Entry,
    HeaderChanges,
    Host,
    Mirror,
    NamedMatch,
    PathChange,
    PathKind,
    PathMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    SessionPersistence,
)
from ambit.model.jwt import ClaimHeader, KeySource, Target, TokenHeader, TokenPolicy, TokenRule
from ambit.model.policy import Exact, Prefix
from ambit.model.provider import Authorizer, BodyInCheck, OverHttp, ProviderService
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.request_policy import (
    Asked,
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
)
from ambit.model.service import AppProtocol, Service, VirtualAddress
from ambit.model.streams import Stream
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.plan.l7 import waypoint
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, NodeSettings, PlannedResource
from tests.plan.as_text import content_of, drop, text_of
from tests.plan.static_tables import check_tables

GOLDEN = Path(__file__).parent.parent / "golden" / "waypoint"
MOST_LINES = 170
WEB = Service(
    "web",
    "default",
    "web.default.svc.cluster.local",
    addresses=(
        VirtualAddress("", ipaddress.ip_address("10.96.0.20")),
        VirtualAddress("", ipaddress.ip_address("fd00:10:96::20")),
    ),
    ports=(Port(80, 8080), Port(6379, 6379), Port(5432, 5432)),
    app_protocols={80: AppProtocol.HTTP11},
)
NEXT = msgspec.structs.replace(
    WEB,
    name="next",
    hostname="next.default.svc.cluster.local",
    addresses=(),
    ports=(Port(50051, 50051),),
    app_protocols={50051: AppProtocol.GRPC},
    subject_alt_names=("spiffe://cluster.local/ns/default/sa/next",),
)
NAMED = msgspec.structs.replace(
    NEXT, name="named", namespace="default", hostname="api.example.com", subject_alt_names=()
)
PROXY = Proxy(
    "default/waypoint",
    ProxyKind.WAYPOINT,
    Identity("cluster.local", "default", "waypoint"),
    "waypoint.default.svc.cluster.local",
    ObjectRef("Gateway", "default", "waypoint"),
)


def workload(name: str, *addresses: str, **more: object) -> Workload:
    fields: dict[str, object] = {
        "uid": f"Kubernetes//Pod/default/{name}",
        "name": name,
        "namespace": "default",
        "identity": Identity("cluster.local", "default", name),
        "addresses": tuple(map(ipaddress.ip_address, addresses)),
        "tunnel": TunnelProtocol.HBONE,
    }
    return Workload(**{**fields, **more})  # type: ignore[arg-type]


POD = workload("web", "10.244.1.2", "fd00:10:244:1::2", services={WEB.key: WEB.ports})
VIEW = Snapshot(
    [
        POD,
        workload("plain", "10.244.1.3", services={WEB.key: WEB.ports}, tunnel=TunnelProtocol.NONE),
        workload("next", "10.244.2.2", services={NEXT.key: NEXT.ports}),
        workload(
            "named",
            hostname="origin.example.com",
            services={NAMED.key: NAMED.ports},
            tunnel=TunnelProtocol.NONE,
        ),
    ],
    [WEB, NEXT, NAMED],
)
TO_WEB, TO_NEXT = Backend(WEB.key, 80), Backend(NEXT.key, 50051)
ENTRIES = (
    Entry(
        "default/matches/0",
        RequestMatch(
            PathMatch(PathKind.PREFIX, "/a"),
            "GET",
            (NamedMatch("x-version", "2"),),
            (NamedMatch("q", "[0-9]+", is_regex=True),),
            ("team-a", "team-b"),
        ),
        Action((TO_NEXT,)),
    ),
    Entry(
        "default/actions/0",
        RequestMatch(PathMatch(PathKind.EXACT, "/b")),
        Action(
            (
                TO_WEB,
                Backend(NEXT.key, 50051, 9, request_headers=HeaderChanges(set=(("x-a", "1"),))),
                Backend("", 0, 2),
            ),
            rewrite=Rewrite("b.example.com", PathChange("/c")),
            request_headers=HeaderChanges((("x-b", "2%"),), (("x-c", "3"),), ("x-d",)),
            mirrors=(Mirror(NEXT.key, 50051, 1, 3),),
            request_timeout=1500,
            backend_timeout=500,
            retry=Retry(2, (503,), 20),
        ),
    ),
    Entry(
        "default/redirect/0",
        RequestMatch(PathMatch(PathKind.REGEX, "/r.*")),
        Action(redirect=Redirect("https", "c.example.com", PathChange("/d"), 8443, 301)),
    ),
    Entry(
        "default/filters/0",
        RequestMatch(method="PUT"),
        Action(
            (TO_WEB,),
            cors=Cors(("https://*.example.com",), ("GET", "*"), ("x-a",), ("x-b",), True, 60),
            session=SessionPersistence("session", lifetime=60_000),
        ),
    ),
    Entry("default/nothing/0", RequestMatch(), Action(status=500)),
)
TOKENS = TokenPolicy(
    ObjectRef("RequestAuthentication", "default", "tokens"),
    (Target("Gateway", "default", "waypoint"),),
    (
        TokenRule(
            "https://a.example",
            ("shop",),
            source=KeySource("https://a.example/keys"),
            headers=(TokenHeader("x-token", "JWT "),),
            params=("t",),
            cookies=("c",),
            forward=True,
            payload_header="x-payload",
            claim_headers=(ClaimHeader("x-group", "group"),),
            space_delimited=("roles",),
        ),
        TokenRule("https://b.example", source=KeySource("https://b.example", is_issuer=True)),
    ),
)
STREAMS = (
    Stream(
        "default/tls/0",
        (Backend(WEB.key, 5432, 9), Backend(NEXT.key, 50051), Backend("", 0, 2)),
        ("a.example.com", "*.example.com"),
    ),
    Stream("default/nobody/0", (), ("a.example.com", "b.example.com")),
)
TABLES = (
    ServiceRoutes(WEB.key, 80, (Host(("*",), ENTRIES),)),
    ServiceRoutes(WEB.key, 5432, streams=STREAMS),
)
BOUND = waypoint.Bound(
    (WEB, NAMED),
    {each.key: each for each in TABLES},
    (POD,),
    tokens=(TOKENS,),
    keys={KeySource("https://a.example/keys"): NOBODYS_KEY},
)
_OVER_HTTP = OverHttp(
    "/check",
    check=(Exact("x-team"), Prefix("x-b-")),
    added=(("x-mesh", "100 %"),),
    upstream_on_allow=(Exact("x-user"),),
    downstream_on_deny=(Exact("x-why"),),
)
AUTHORIZERS = (
    Authorizer("by-http", ProviderService(WEB.hostname, 80), 500, status_on_error=503, http=_OVER_HTTP),
    Authorizer("by-rpc", ProviderService(NEXT.hostname, 50051), fail_open=True, body=BodyInCheck(1024)),
    None,
)
"""The last one is nobody."""


def _asking(index: int, authorizer: Authorizer | None) -> RequestPolicy:
    callers = Condition(Attribute.NAMESPACE, (Exact(f"team-{index}"),))
    given = RequestPolicy(
        f"custom-{index}",
        "default",
        RequestAction.CUSTOM,
        (Target("Gateway", "default", "waypoint"),),
        (Rule((Clause((Match((callers,)),)),)),),
        provider=authorizer.name if authorizer is not None else "nobody",
    )
    if authorizer is None:
        return given
    key = f"default/{authorizer.service.hostname}"
    return msgspec.structs.replace(given, asked=Asked(authorizer, key))


ASKING = msgspec.structs.replace(
    BOUND, authorization=tuple(_asking(index, each) for index, each in enumerate(AUTHORIZERS))
)
"""What is bound, with policies that have somebody else decide."""
STREAM = names.service_cluster(WEB.key, 5432)
SHOWN = {
    (LISTENER, names.HBONE): "tunnels",
    (ROUTES, names.HBONE): "authorities",
    (LISTENER, names.CONNECT_ORIGINATE): "originate",
    (CLUSTER, names.INTO): "into",
    (ENDPOINTS, names.INTO): "ways",
    (LISTENER, names.service_cluster(WEB.key, 80)): "http",
    (ROUTES, names.service_cluster(WEB.key, 80)): "table",
    (EXTENSION, names.tokens(WEB.key)): "tokens",
    (EXTENSION, names.asks(WEB.key, 80)): "asks_http",
    (EXTENSION, names.asks(WEB.key, 80, 1)): "asks_grpc",
    (CLUSTER, names.service_cluster(WEB.key, 80)): "http_cluster",
    (ENDPOINTS, names.service_cluster(WEB.key, 80)): "endpoints",
    (LISTENER, names.service_cluster(WEB.key, 6379)): "tcp",
    (LISTENER, STREAM): "streams",
    (EXTENSION, names.stream(STREAM, STREAMS[0].name)): "stream",
    (CLUSTER, names.service_cluster(NEXT.key, 50051)): "grpc_cluster",
    (CLUSTER, names.service_cluster(NAMED.key, 50051)): "named_cluster",
    (CLUSTER, names.tunnel(Identity("cluster.local", "default", "next"), NEXT.key)): "tunnel",
    (ROUTES, names.service_cluster(NAMED.key, 50051)): "plain_table",
    (LISTENER, names.service_cluster(POD.uid, 0)): "pod_tcp",
    (CLUSTER, names.service_cluster(POD.uid, 0)): "pod_cluster",
    (ENDPOINTS, names.service_cluster(POD.uid, 8080)): "pod_endpoints",
}


def resources() -> dict[tuple[str, str], PlannedResource]:
    """Of what is bound; the places of who is asked as with ASKING."""
    return {
        (each.type_url, each.name): each
        for bound in (BOUND, ASKING)
        for each in waypoint.resources(PROXY, bound, VIEW, NodeSettings(node=""))
        if bound is BOUND or each.name in (names.asks(WEB.key, 80), names.asks(WEB.key, 80, 1))
    }


@pytest.mark.parametrize("case", sorted(SHOWN, key=SHOWN.__getitem__), ids=lambda case: SHOWN[case])
def test_golden(case: tuple[str, str], pytestconfig: pytest.Config) -> None:
    content = content_of(resources()[case])
    # The same everywhere; what is answered for a server is shown by the node's `req_listener`.
    for repeated in ("socket_options", "circuit_breakers", "local_reply_config"):
        drop(content, repeated)
    if case[0] == CLUSTER and not SHOWN[case].startswith("http"):
        drop(content, "transport_socket_matches")
    text = text_of(content)
    path = GOLDEN / f"{SHOWN[case]}.yaml"
    if pytestconfig.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    assert text.count("\n") <= MOST_LINES or SHOWN[case] in ("table", "authorities")


@pytest.mark.envoy
def test_envoy_takes_all_tables(tmp_path: Path) -> None:
    check_tables(resources().values(), tmp_path)


def test_no_golden_is_unused() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SHOWN.values())


def test_names_are_unique_and_equal_input_gives_equal_resources() -> None:
    made = waypoint.resources(PROXY, BOUND, VIEW, NodeSettings(node=""))
    assert len({(each.type_url, each.name) for each in made}) == len(made)
    assert made == waypoint.resources(PROXY, BOUND, VIEW, NodeSettings(node=""))


def test_only_what_is_bound_or_a_backend_is_there() -> None:
    made = waypoint.resources(PROXY, waypoint.Bound((NAMED,)), VIEW, NodeSettings(node=""))
    assert not [each.name for each in made if WEB.key in each.name or NEXT.key in each.name]
    assert waypoint.depends_on(PROXY, BOUND) == {WEB.key, NEXT.key, NAMED.key, POD.uid}
    assert waypoint.depends_on(PROXY, waypoint.Bound((NAMED,))) == {NAMED.key}


def test_of_two_services_with_one_address_one_has_it() -> None:
    other = msgspec.structs.replace(WEB, name="another", hostname="another.default.svc.cluster.local")
    made = waypoint.resources(PROXY, waypoint.Bound((WEB, other)), VIEW, NodeSettings(node=""))
    (table,) = (content_of(each) for each in made if (each.type_url, each.name) == (ROUTES, names.HBONE))
    domains = [domain for host in table["virtual_hosts"] for domain in host["domains"]]
    assert len(domains) == len(set(domains))
    assert "10.96.0.20:80" in domains
