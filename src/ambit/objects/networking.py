"""Typed projections of Istio's objects about what is no pod (networking.istio.io/v1): ServiceEntry, WorkloadEntry."""

import msgspec

from ambit.objects.meta import ObjectMeta


class EntryPort(msgspec.Struct, frozen=True, rename="camel"):
    number: int
    name: str = ""
    protocol: str = ""
    target_port: int = 0


class EntryEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """A WorkloadEntry's spec, and each of a ServiceEntry's endpoints. `address` is an IP address, a name, or empty."""

    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: str = ""
    locality: str = ""
    weight: int = 0
    service_account: str = ""


class WorkloadSelector(msgspec.Struct, frozen=True):
    labels: dict[str, str] = {}


class ServiceEntrySpec(msgspec.Struct, frozen=True, rename="camel"):
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[EntryPort, ...] = ()
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: tuple[EntryEndpoint, ...] = ()
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


class AllocatedAddress(msgspec.Struct, frozen=True):
    """An address that the control plane gave to a host."""

    value: str = ""
    host: str = ""


class StatusCondition(msgspec.Struct, frozen=True):
    type: str = ""


class ServiceEntryStatus(msgspec.Struct, frozen=True):
    addresses: tuple[AllocatedAddress, ...] = ()
    conditions: tuple[StatusCondition, ...] = ()


class ServiceEntry(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: ServiceEntrySpec = ServiceEntrySpec()
    status: ServiceEntryStatus = ServiceEntryStatus()


class WorkloadEntry(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: EntryEndpoint = EntryEndpoint()
