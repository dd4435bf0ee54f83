"""Service and EndpointSlice values for tests."""

from ambit.local.fabric.services import (
    Conditions,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Ingress,
    LoadBalancer,
    Metadata,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)

READY, DRAINING, GONE = (
    Conditions(ready=True),
    Conditions(ready=False, serving=True, terminating=True),
    Conditions(ready=False),
)


def service(name: str, *addresses: str, ports: tuple[ServicePort, ...] = (), **spec: object) -> Service:
    balancer = LoadBalancer((Ingress("192.0.2.7"),)) if spec.get("type") == "LoadBalancer" else LoadBalancer()
    built = ServiceSpec(
        cluster_ip=addresses[0] if addresses else "", cluster_ips=addresses, ports=ports, **spec
    )  # type: ignore[arg-type]
    return Service(Metadata(name, "default"), built, ServiceStatus(balancer))


def endpoint_slice(
    name: str,
    *endpoints: Endpoint,
    family: str = "IPv4",
    ports: tuple[EndpointPort, ...] = (EndpointPort("", 8080),),
) -> EndpointSlice:
    labels = {"kubernetes.io/service-name": name}
    return EndpointSlice(Metadata(f"{name}-{family}", "default", labels), family, endpoints, ports)


def endpoint(
    address: str, conditions: Conditions = READY, node: str = "node1", hostname: str = ""
) -> Endpoint:
    return Endpoint((address,), conditions, hostname, node)
