"""Which kinds of objects each part of the compiler reads, by their resources (keys of `PROJECTIONS`)."""

from collections.abc import Mapping
from typing import Any

from ambit.graph.collection import Collection, Source
from ambit.ingest.gateway.backend_tls import PolicySources
from ambit.ingest.gateway.compile import RouteSources, WaypointSources
from ambit.ingest.gateway.compile_edge import EdgeSources
from ambit.ingest.gateway.missing_parents import ParentSources
from ambit.ingest.istio.compile import IstioSources
from ambit.ingest.kube.compile import KubeSources
from ambit.model.streams import Datagrams

Sources = Mapping[str, Source[Any]]


def kube(given: Sources) -> KubeSources:
    return KubeSources(
        namespaces=given["namespaces"],
        nodes=given["nodes"],
        services=given["services"],
        slices=given["endpointslices.discovery.k8s.io"],
        pods=given["pods"],
    )


def istio(given: Sources) -> IstioSources:
    return IstioSources(
        given["authorizationpolicies.security.istio.io"],
        given["peerauthentications.security.istio.io"],
        given["requestauthentications.security.istio.io"],
        given["telemetries.telemetry.istio.io"],
    )


def waypoints(given: Sources) -> WaypointSources:
    return WaypointSources(
        classes=given["gatewayclasses.gateway.networking.k8s.io"],
        gateways=given["gateways.gateway.networking.k8s.io"],
        namespaces=given["namespaces"],
        services=given["services"],
        pods=given["pods"],
        entries=given["serviceentries.networking.istio.io"],
        workload_entries=given["workloadentries.networking.istio.io"],
    )


def edges(given: Sources) -> EdgeSources:
    return EdgeSources(
        classes=given["gatewayclasses.gateway.networking.k8s.io"],
        gateways=given["gateways.gateway.networking.k8s.io"],
        sets=given["listenersets.gateway.networking.k8s.io"],
        namespaces=given["namespaces"],
        services=given["services"],
        pods=given["pods"],
        secrets=given["secrets"],
        configmaps=given["configmaps"],
        grants=given["referencegrants.gateway.networking.k8s.io"],
    )


def routes(given: Sources, datagrams: Collection[Datagrams]) -> RouteSources:
    return RouteSources(
        http=given["httproutes.gateway.networking.k8s.io"],
        grpc=given["grpcroutes.gateway.networking.k8s.io"],
        tls=given["tlsroutes.gateway.networking.k8s.io"],
        tcp=given["tcproutes.gateway.networking.k8s.io"],
        udp=given["udproutes.gateway.networking.k8s.io"],
        grants=given["referencegrants.gateway.networking.k8s.io"],
        services=given["services"],
        datagrams=datagrams,
    )


def parents(given: Sources) -> ParentSources:
    return ParentSources(
        routes=(
            given["grpcroutes.gateway.networking.k8s.io"],
            given["httproutes.gateway.networking.k8s.io"],
            given["tlsroutes.gateway.networking.k8s.io"],
            given["tcproutes.gateway.networking.k8s.io"],
            given["udproutes.gateway.networking.k8s.io"],
        ),
        gateways=given["gateways.gateway.networking.k8s.io"],
        sets=given["listenersets.gateway.networking.k8s.io"],
    )


def backend_policies(given: Sources) -> PolicySources:
    return PolicySources(
        namespaces=given["namespaces"],
        policies=given["backendtlspolicies.gateway.networking.k8s.io"],
        config_maps=given["configmaps"],
        services=given["services"],
        entries=given["serviceentries.networking.istio.io"],
    )
