"""The mesh as proxies' plans read it: what was compiled, with an index from services to their endpoints."""

from collections.abc import Iterable, Mapping, Sequence

from ambit.core.address import Address, Network
from ambit.ingest.mesh import MeshDelta
from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.workload import Workload


class LiveView:
    """A `ambit.model.view.MeshView` for plans of waypoints, which go by names only: it finds nothing by address."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._workloads: dict[str, Workload] = {}
        self._endpoints: dict[str, set[str]] = {}

    def take(self, delta: MeshDelta) -> set[str]:
        """The view is as new as `delta`; the keys of services that are others now or have other endpoints, and the
        uids of workloads that are others now."""
        touched = {*delta.services.upserts, *delta.services.removals}
        touched.update(delta.workloads.upserts, delta.workloads.removals)
        self._services.update(delta.services.upserts)
        for key in delta.services.removals:
            self._services.pop(key, None)
        for uid in delta.workloads.removals:
            touched.update(self._replace(uid, None))
        for uid, workload in delta.workloads.upserts.items():
            touched.update(self._replace(uid, workload))
        return touched

    def _replace(self, uid: str, workload: Workload | None) -> Iterable[str]:
        before = self._workloads.pop(uid, None)
        gone = before.services.keys() if before is not None else set[str]()
        there = workload.services.keys() if workload is not None else set[str]()
        for key in gone - there:
            members = self._endpoints[key]
            members.discard(uid)
            if not members:
                del self._endpoints[key]
        for key in there - gone:
            self._endpoints.setdefault(key, set()).add(uid)
        if workload is not None:
            self._workloads[uid] = workload
        return gone | there

    @property
    def services(self) -> Mapping[str, Service]:
        return self._services

    @property
    def workloads(self) -> Mapping[str, Workload]:
        return self._workloads

    def workload(self, uid: str) -> Workload | None:
        return self._workloads.get(uid)

    def workload_by_address(self, network: str, address: Address) -> Workload | None:
        del network, address
        return None

    def service(self, key: str) -> Service | None:
        return self._services.get(key)

    def service_by_address(
        self, network: str, address: Address, *, client_namespace: str = ""
    ) -> Service | None:
        del network, address, client_namespace
        return None

    def has_address(self, network: str, address: Address) -> bool:
        del network, address
        return False

    def endpoints(self, service: Service) -> Sequence[Workload]:
        return [self._workloads[uid] for uid in sorted(self._endpoints.get(service.key, ()))]

    def policies_for(self, workload: Workload) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
        """Nothing: endpoints decide for themselves."""
        del workload
        return (), ()

    def outer_networks(self, network: str) -> tuple[Network, ...]:
        del network
        return ()
