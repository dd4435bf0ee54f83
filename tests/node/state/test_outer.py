"""Networks outside the usual ranges: kept once found, found anew when such an address comes."""

import ipaddress
from pathlib import Path

from ambit.model.service import Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import Workload
from ambit.node.state.mesh import MeshState
from ambit.xds.messages import ADDRESS_TYPE, to_resource
from tests.plan.cases import workload


def virtual(address: str, prefix: int | None = None) -> Service:
    return Service(
        name=address,
        namespace="default",
        hostname=f"s{address}",
        addresses=(VirtualAddress("", ipaddress.ip_address(address), prefix),),
    )


def test_the_state_file_answers_as_the_values_do(tmp_path: Path) -> None:
    state = MeshState(tmp_path / "state.sqlite")
    workloads: list[Workload] = []
    services: list[Service] = []
    for value in (
        workload("a", "10.0.0.1", "fd00::1"),
        workload("b", "203.0.113.5", "2001:db8::5"),
        virtual("198.51.100.7"),
        virtual("2001:2:0:1::7"),
        virtual("2001:2:5::7"),
        virtual("8.0.0.0", 7),
        virtual("9.9.9.0", 24),
    ):
        (workloads if isinstance(value, Workload) else services).append(value)  # type: ignore[arg-type]
        state.apply(ADDRESS_TYPE, [to_resource(value)], [])
        assert state.outer_networks("") == Snapshot(workloads, services).outer_networks("")
    assert state.outer_networks("other") == ()
    assert len(state.outer_networks("")) == 6
    state.close()
