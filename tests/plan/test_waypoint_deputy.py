"""Nobody reaches by way of a waypoint, with its identity, whom he must not reach himself."""

import ipaddress

import msgspec

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.service import AppProtocol, Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.plan.l7 import waypoint
from ambit.plan.values import CLUSTER, ENDPOINTS, ROUTES, NodeSettings
from tests.plan.as_text import content_of, text_of

WAYPOINT = Identity("cluster.local", "shop", "waypoint")
VICTIM = Identity("cluster.local", "bank", "vault")
PROXY = Proxy(
    "shop/waypoint",
    ProxyKind.WAYPOINT,
    WAYPOINT,
    "waypoint.shop.svc.cluster.local",
    ObjectRef("Gateway", "shop", "waypoint"),
)
PORTS = (Port(80, 8080),)


def service(namespace: str, name: str, *sans: str) -> Service:
    hostname = f"{name}.{namespace}.svc.cluster.local"
    return Service(
        name, namespace, hostname, ports=PORTS, app_protocols={80: AppProtocol.HTTP11}, subject_alt_names=sans
    )


def workload(identity: Identity, address: str, *behind: Service) -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/{identity.namespace}/{identity.service_account}",
        name=identity.service_account,
        namespace=identity.namespace,
        identity=identity,
        addresses=(ipaddress.ip_address(address),),
        services={each.key: PORTS for each in behind},
        tunnel=TunnelProtocol.HBONE,
    )


def made(bound: Service, backend: Service, *workloads: Workload) -> dict[tuple[str, str], str]:
    """What the waypoint's Envoy gets when requests to `bound` go on to `backend`."""
    entry = Entry("other/route/0", RequestMatch(), Action((Backend(backend.key, 80),)))
    routes = ServiceRoutes(bound.key, 80, (Host(("*",), (entry,)),))
    view = Snapshot(workloads, [bound, backend])
    found = waypoint.resources(
        PROXY, waypoint.Bound((bound,), {routes.key: routes}), view, NodeSettings(node="")
    )
    return {(each.type_url, each.name): text_of(content_of(each)) for each in found}


WEB = service("shop", "web")


def test_a_service_of_another_namespace_leads_to_servers_of_that_namespace_only() -> None:
    """An EndpointSlice may name anybody's pod. By a route's backend, and by the service that is bound itself."""
    theirs = service("other", "mine")
    own = workload(Identity("cluster.local", "other", "server"), "10.0.0.1", theirs)
    victim = workload(VICTIM, "10.0.0.2", theirs)
    for bound in (WEB, theirs):
        found = made(bound, theirs, own, victim)
        endpoints = found[ENDPOINTS, names.service_cluster(theirs.key, 80)]
        assert "10.0.0.1" in endpoints
        assert "10.0.0.2" not in endpoints
        assert (CLUSTER, names.tunnel(own.identity)) in found
        assert (CLUSTER, names.tunnel(VICTIM)) not in found


def test_a_service_of_another_namespace_names_identities_of_that_namespace_only() -> None:
    """A ServiceEntry says where its servers are and what they may prove."""
    mine = "spiffe://cluster.local/ns/other/sa/vm"
    theirs = service("other", "mine", VICTIM.uri, mine, "spiffe://no/workload")
    pretended = workload(Identity("cluster.local", "other", "server"), "10.0.0.2", theirs)
    tunnel = made(WEB, theirs, pretended)[CLUSTER, names.tunnel(pretended.identity, theirs.key)]
    assert mine in tunnel
    assert pretended.identity.uri in tunnel
    assert VICTIM.uri not in tunnel
    assert "spiffe://no/workload" not in tunnel


def test_who_claims_the_address_of_anothers_service_does_not_get_what_is_sent_there() -> None:
    address = (VirtualAddress("", ipaddress.ip_address("240.240.0.1")),)
    theirs = msgspec.structs.replace(service("aaa", "mine"), hostname="mine.example", addresses=address)
    for held in (
        msgspec.structs.replace(WEB, hostname="web.example", addresses=address),
        msgspec.structs.replace(service("pay", "web"), addresses=address, canonical=True),
    ):
        bound = waypoint.Bound((theirs, held))
        found = waypoint.resources(PROXY, bound, Snapshot((), bound.services), NodeSettings(node=""))
        (table,) = (content_of(each) for each in found if (each.type_url, each.name) == (ROUTES, names.HBONE))
        holders = [each["name"] for each in table["virtual_hosts"] if "240.240.0.1:80" in each["domains"]]
        assert holders == [names.into_service(held.key, 80)]


def test_the_waypoints_own_namespace_may_name_whom_it_likes() -> None:
    web = msgspec.structs.replace(WEB, subject_alt_names=(VICTIM.uri,))
    found = made(web, web, workload(VICTIM, "10.0.0.2", web))
    assert "10.0.0.2" in found[ENDPOINTS, names.service_cluster(web.key, 80)]
    assert VICTIM.uri in found[CLUSTER, names.tunnel(VICTIM, web.key)]


def test_nobody_is_led_into_the_proxys_own_pod() -> None:
    """Its agent tells there what everybody asks for."""
    theirs = service("other", "mine")
    own = workload(Identity("cluster.local", "other", "server"), "10.0.0.1", theirs)
    addresses = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.1.1", "0.0.0.0", "fe80::1")
    plain = [
        msgspec.structs.replace(
            own, uid=each, addresses=(ipaddress.ip_address(each),), tunnel=TunnelProtocol.NONE
        )
        for each in addresses
    ]
    place = ENDPOINTS, names.service_cluster(theirs.key, 80)
    assert made(theirs, theirs, own, *plain)[place] == made(theirs, theirs, own)[place]


def test_names_that_may_be_the_proxys_own_pod_lead_to_no_port_of_its_agent() -> None:
    theirs = service("other", "mine")
    own = workload(Identity("cluster.local", "other", "server"), "10.0.0.1", theirs)
    named = [
        msgspec.structs.replace(
            own,
            uid=name,
            hostname=name,
            addresses=(),
            tunnel=TunnelProtocol.NONE,
            services={theirs.key: (Port(80, port),)},
        )
        for name, port in (("outside.example", 8080), ("inside.example", 15000))
    ]
    cluster = made(theirs, theirs, *named)[CLUSTER, names.service_cluster(theirs.key, 80)]
    assert "outside.example" in cluster
    assert "inside.example" not in cluster
