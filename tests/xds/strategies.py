"""Hypothesis strategies for the values of the workload API."""

import ipaddress

from hypothesis import strategies as st

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.model import http, provider, request_policy
from ambit.model import service as svc
from ambit.model.backend_tls import BackendTls
from ambit.model.http import Backend, Entry, Host, NamedMatch, PathKind, PathMatch, RequestMatch
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import ClaimHeader, KeySource, Target, TokenHeader, TokenPolicy, TokenRule
from ambit.model.metrics import MetricsRule
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
    Suffix,
)
from ambit.model.provider import ProviderService
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.service import Service, VirtualAddress
from ambit.model.telemetry import (
    Entries,
    InlineTelemetry,
    Level,
    LogRule,
    LogService,
    Printer,
    TelemetryPolicy,
)
from ambit.model.tracing import TracingRule
from ambit.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Locality,
    NetworkMode,
    Port,
    TunnelledAs,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)

names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
texts = st.text(max_size=8)
port_numbers = st.integers(0, 65535)
addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
networks = addresses.flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda length: ipaddress.ip_network((address, length), strict=False)
    )
)
keys = st.builds(lambda namespace, host: f"{namespace}/{host}.svc", names, names)
ports = st.builds(Port, port_numbers, port_numbers)


def some(of, size=3):
    return st.lists(of, max_size=size).map(tuple)


log_services = st.builds(
    LogService,
    st.builds(ProviderService, names, port_numbers, names),
    texts,
    some(st.tuples(texts, texts)),
    st.none() | st.builds(Entries, some(texts)),
)
gateways = st.builds(GatewayAddress, port=port_numbers, namespace=names, hostname=names) | st.builds(
    GatewayAddress, port=port_numbers, network=texts, address=addresses
)


@st.composite
def workloads(draw):
    namespace = draw(names)
    return Workload(
        uid=draw(texts),
        name=draw(names),
        namespace=namespace,
        identity=Identity(draw(names), namespace, draw(names)),
        addresses=draw(some(addresses)),
        hostname=draw(texts),
        network=draw(texts),
        tunnel=draw(st.sampled_from(TunnelProtocol)),
        waypoint=draw(st.none() | gateways),
        network_gateway=draw(st.none() | gateways),
        node=draw(names),
        canonical_name=draw(texts),
        canonical_revision=draw(texts),
        workload_type=draw(st.sampled_from(WorkloadType)),
        workload_name=draw(texts),
        native_tunnel=draw(st.booleans()),
        policies=draw(some(keys)),
        status=draw(st.sampled_from(WorkloadStatus)),
        cluster_id=draw(names),
        services=draw(st.dictionaries(keys, some(ports), max_size=3)),
        locality=draw(st.builds(Locality, texts, texts, texts)),
        network_mode=draw(st.sampled_from(NetworkMode)),
        capacity=draw(st.integers(0, 2**32 - 1)),
        application_tunnel=draw(
            st.none() | st.builds(ApplicationTunnel, st.sampled_from(TunnelledAs), port_numbers)
        ),
    )


virtual_addresses = st.builds(
    lambda network, net: VirtualAddress(
        network, net.network_address, None if net.prefixlen == net.max_prefixlen else net.prefixlen
    ),
    texts,
    networks,
)


service_routes = st.builds(
    ServiceRoutes,
    texts,
    port_numbers,
    some(
        st.builds(
            Host,
            some(texts),
            some(
                st.builds(
                    Entry,
                    texts,
                    st.builds(
                        RequestMatch,
                        path=st.none() | st.builds(PathMatch, st.sampled_from(PathKind), texts),
                        headers=some(st.builds(NamedMatch, texts, texts, st.booleans())),
                    ),
                    st.builds(http.Action, some(st.builds(Backend, texts, port_numbers))),
                )
            ),
        )
    ),
)


string_matches = (
    st.builds(Exact, texts) | st.builds(Prefix, texts) | st.builds(Suffix, texts) | st.just(Presence())
)
_values = some(
    string_matches
    | st.builds(request_policy.PathTemplate, texts)
    | st.builds(ServiceAccountMatch, names, names)
    | networks
    | port_numbers
)
_conditions = st.builds(
    request_policy.Condition, st.sampled_from(request_policy.Attribute), _values, _values, some(texts)
)
_targets = some(st.builds(Target, st.sampled_from(["Service", "Gateway", "GatewayClass"]), names, names))
_header_names = some(st.builds(Exact, texts) | st.builds(Prefix, texts) | st.builds(Suffix, texts))
_authorizers = st.builds(
    provider.Authorizer,
    texts,
    st.builds(provider.ProviderService, names, port_numbers, texts),
    fail_open=st.booleans(),
    body=st.none() | st.builds(provider.BodyInCheck, port_numbers, st.booleans(), st.booleans()),
    http=st.none()
    | st.builds(
        provider.OverHttp,
        texts,
        _header_names,
        some(st.tuples(texts, texts)),
        _header_names,
        _header_names,
        _header_names,
    ),
)
request_policies = st.builds(
    request_policy.RequestPolicy,
    names,
    names,
    st.sampled_from(request_policy.RequestAction),
    _targets,
    some(
        st.builds(
            request_policy.Rule,
            some(
                st.builds(
                    request_policy.Clause, some(st.builds(request_policy.Match, some(_conditions, 2)), 2)
                ),
                2,
            ),
        ),
        2,
    ),
    dry_run=st.booleans(),
    provider=texts,
    asked=st.none() | st.builds(request_policy.Asked, _authorizers, texts),
)
_origins = st.builds(ObjectRef, names, names, names)
token_policies = st.builds(
    TokenPolicy,
    _origins,
    _targets,
    some(
        st.builds(
            TokenRule,
            texts,
            some(texts),
            keys=texts,
            source=st.none() | st.builds(KeySource, texts, st.booleans()),
            headers=some(st.builds(TokenHeader, texts, texts)),
            claim_headers=some(st.builds(ClaimHeader, texts, texts)),
        )
    ),
    st.booleans(),
)


backend_tls = st.builds(BackendTls, texts, texts, some(texts), some(texts), texts)


inline_telemetry = st.builds(
    InlineTelemetry,
    st.builds(
        Proxy,
        key=texts,
        kind=st.just(ProxyKind.INLINE),
        identity=st.builds(Identity, names, names, names),
        service=texts,
        origin=st.builds(ObjectRef, names, names, names),
    ),
    some(
        st.builds(
            TelemetryPolicy,
            key=texts,
            level=st.sampled_from(Level),
            logs=some(
                st.builds(LogRule, some(st.builds(Printer, texts, to=st.none() | log_services)), texts)
            ),
            metrics=some(
                st.builds(
                    MetricsRule,
                    some(texts),
                    labels=some(st.tuples(texts, st.none() | texts)),
                    expressions=some(st.tuples(texts, texts)),
                )
            ),
            tracing=some(st.builds(TracingRule, sampling=st.none() | st.floats(0, 100))),
        ),
        2,
    ),
)


@st.composite
def services(draw):
    served = draw(st.lists(ports, max_size=3, unique_by=lambda port: port.service).map(tuple))
    protocols = st.sampled_from([each for each in svc.AppProtocol if each])
    return Service(
        name=draw(names),
        namespace=draw(names),
        hostname=draw(names),
        addresses=draw(some(virtual_addresses)),
        ports=served,
        app_protocols={port.service: draw(protocols) for port in served if draw(st.booleans())},
        subject_alt_names=draw(some(texts)),
        waypoint=draw(st.none() | gateways),
        load_balancing=draw(
            st.none()
            | st.builds(
                svc.LoadBalancing,
                some(st.sampled_from(svc.Scope)),
                st.sampled_from(svc.BalancingMode),
                st.sampled_from(svc.HealthPolicy),
            )
        ),
        ip_families=draw(st.sampled_from(svc.IpFamilies)),
        canonical=draw(st.booleans()),
        visibility=draw(st.sampled_from(svc.Visibility)),
        session_affinity=draw(st.booleans()),
        backend_tls=draw(st.dictionaries(st.integers(1, 65535), backend_tls, max_size=2)),
        inline=draw(st.none() | some(service_routes)),
        telemetry=draw(st.none() | inline_telemetry),
        rules=draw(st.none() | st.builds(InlineRules, some(request_policies, 2), some(token_policies, 2))),
        weighted_waypoints=draw(some(st.builds(svc.WeightedWaypoint, gateways, st.integers(0, 2**32 - 1)))),
    )


matches = st.builds(
    Match,
    namespaces=some(string_matches),
    not_namespaces=some(string_matches),
    principals=some(string_matches),
    not_principals=some(string_matches),
    source_ips=some(networks),
    not_source_ips=some(networks),
    destination_ips=some(networks),
    not_destination_ips=some(networks),
    destination_ports=some(port_numbers),
    not_destination_ports=some(port_numbers),
    service_accounts=some(st.builds(ServiceAccountMatch, names, names)),
    not_service_accounts=some(st.builds(ServiceAccountMatch, names, names)),
)
authorizations = st.builds(
    Authorization,
    name=names,
    namespace=names,
    scope=st.sampled_from(Scope),
    action=st.sampled_from(Action),
    rules=some(st.builds(Rule, some(st.builds(Clause, some(matches, 2)), 2)), 2),
    dry_run=st.booleans(),
)
values = workloads() | services() | authorizations
