"""By which names tunnels from other networks ask for a pod."""

import ipaddress

import msgspec
import pytest

from ambit.envoy.node import host_names
from ambit.model.service import Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import ApplicationTunnel, Port, TunnelledAs
from ambit.plan.node.names_served import host_targets
from ambit.plan.values import NodeSettings
from tests.plan.cases import workload

WEB = Service(
    name="web",
    namespace="default",
    hostname="Web.default.svc",
    addresses=tuple(
        VirtualAddress(network, ipaddress.ip_address(address), prefix)
        for network, address, prefix in (
            ("west", "fd99::1", None),
            ("west", "10.96.0.1", None),
            ("east", "10.97.0.1", None),
            ("west", "10.1.0.0", 16),
        )
    ),
    ports=(Port(80, 8080), Port(81, 0), Port(82, 15008), Port(83, 0)),
)
SETTINGS = NodeSettings(node="n", network="west")
POD = workload("pod", "10.0.0.1", services={WEB.key: (Port(81, 9000),), "default/gone.test": (Port(1, 1),)})


def test_a_service_port_is_the_pods_own() -> None:
    """Its own word goes before the service's; ports that it does not serve, or of the mesh, are not there."""
    found = host_targets(POD, Snapshot([POD], [WEB]), SETTINGS)
    assert found == {"web.default.svc:80": "8080", "web.default.svc:81": "9000"}


@pytest.mark.parametrize(
    ("network", "address"), [("west", "10.96.0.1"), ("east", "10.97.0.1"), ("north", "10.96.0.1")]
)
def test_one_that_is_told_gets_an_address_of_the_service(network: str, address: str) -> None:
    """Of its own network first, then IPv4 (ztunnel `find_inbound_upstream`)."""
    told = msgspec.structs.replace(POD, application_tunnel=ApplicationTunnel(TunnelledAs.PROXY, 15088))
    settings = msgspec.structs.replace(SETTINGS, network=network)
    found = host_targets(told, Snapshot([told], [WEB]), settings)
    assert found == {"web.default.svc:80": f"{address}:80", "web.default.svc:81": f"{address}:81"}
    named = msgspec.structs.replace(WEB, addresses=())
    assert host_targets(told, Snapshot([told], [named]), settings) == {}
    plain = msgspec.structs.replace(told, application_tunnel=ApplicationTunnel())
    assert set(host_targets(plain, Snapshot([plain], [WEB]), settings).values()) == {"8080", "9000"}


@pytest.mark.parametrize(
    "host",
    ['a"] = os.exit() --:80', "*.test:80", "a.test", "a.test:0", "a.test:80\n", "", "A.test:80", "-:1"],
)
def test_nothing_but_names_gets_into_the_program(host: str) -> None:
    def program(targets: dict[str, str]) -> bytes:
        made: bytes = host_names.extension("p", targets).SerializeToString(deterministic=True)
        return made

    assert program({host: "80"}) == program({})
    assert program({"a.test:80": '"] = 1'}) == program({})
    assert program({"a.test:80": "80"}) != program({})
