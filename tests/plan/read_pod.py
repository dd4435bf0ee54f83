"""A pod whose requests are read where it is, for golden files: HTTP on one port, bytes on another."""

import ipaddress
from collections.abc import Iterator

import msgspec

from ambit.core.finding import ObjectRef
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import Target, TokenPolicy, TokenRule
from ambit.model.policy import Exact
from ambit.model.provider import Authorizer, OverHttp, ProviderService
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
from ambit.model.view import Snapshot
from ambit.model.workload import Port
from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, LocalPods, PlannedResource
from tests.plan import cases

_TARGETS = (Target("Service", "default", "read"),)
_MATCH = Match(
    (
        Condition(Attribute.PRINCIPAL, (Exact(cases.CLIENT.identity.principal),)),
        Condition(Attribute.METHOD, (Exact("GET"),)),
    )
)
READ = Service(
    name="read",
    namespace="default",
    hostname="read.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.26")),),
    ports=(Port(80, 8080), Port(81, 8081)),
    app_protocols={80: AppProtocol.HTTP11, 81: AppProtocol.TCP},
    canonical=True,
    inline=(),
    rules=InlineRules(
        (RequestPolicy("p", "default", RequestAction.ALLOW, _TARGETS, (Rule((Clause((_MATCH,)),)),)),),
        (
            TokenPolicy(
                ObjectRef("RequestAuthentication", "default", "tokens"),
                _TARGETS,
                (TokenRule("https://issuer.example"),),
            ),
        ),
    ),
)
AUTHZ = Service(
    name="authz",
    namespace="default",
    hostname="authz.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.0.27")),),
    ports=(Port(8000, 8000),),
    canonical=True,
)
_ASKED = Asked(
    Authorizer("authz", ProviderService(AUTHZ.hostname, 8000), timeout=2000, http=OverHttp()), AUTHZ.key
)
_CUSTOM = RequestPolicy("c", "default", RequestAction.CUSTOM, _TARGETS, (Rule(),), asked=_ASKED)
ASKING = msgspec.structs.replace(READ, rules=InlineRules((_CUSTOM,)))
SERVER = cases.workload("server", "10.244.1.6", node="node1", services={READ.key: READ.ports})
_CLOSING = READ.closing(SERVER)
assert _CLOSING is not None
WORKLOAD = msgspec.structs.replace(SERVER, policies=(_CLOSING.key,))
VIEW = Snapshot([cases.CLIENT, WORKLOAD], [READ], [_CLOSING])


def resources() -> Iterator[tuple[str, PlannedResource]]:
    """What differs from other pods', by the names of golden files."""
    pod, client = cases.pod(WORKLOAD), cases.pod(cases.CLIENT)
    kinds = {CLUSTER: "cluster", EXTENSION: "extension", LISTENER: "listener"}
    for each in node_proxy.pod_resources(pod, VIEW, cases.SETTINGS):
        first = each.name.partition("|")[0]
        if first not in ("out", "local", "asks"):
            yield f"read_{first}_{kinds.get(each.type_url, 'table')}", each
    far = cases.workload("authz", "10.244.2.9", node="node2", services={AUTHZ.key: AUTHZ.ports})
    asking = Snapshot([WORKLOAD, far], [ASKING, AUTHZ], [_CLOSING])
    for each in node_proxy.pod_resources(pod, asking, cases.SETTINGS):
        first = each.name.partition("|")[0]
        if first in ("asks", "own") or each.name.startswith("into|own"):
            yield f"read_{'way' if first == 'into' else first}_{kinds[each.type_url]}", each
    name = f"dst|{client.key}|10.244.1.6:8080"
    yield "read_dst", node_proxy.destination(name, VIEW, LocalPods([pod, client]), cases.SETTINGS)
