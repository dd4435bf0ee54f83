"""Which namespace a path leads to: the living one, never the agent's own."""

import ipaddress
import os
import subprocess
from collections.abc import Iterator

import pytest

from ambit.core.errors import EnvironmentProblem
from ambit.node.netns import identity
from tests.plan.dataplane.network import add_namespace

pytestmark = pytest.mark.netns


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"aid{os.getpid()}"
    add_namespace(name)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=False)


def test_another_namespace_of_the_same_path_is_another(netns: str) -> None:
    first = identity.identify(netns)
    assert identity.identify(netns) == first
    name = netns.rpartition("/")[2]
    other = f"{name}x"
    add_namespace(other)
    try:
        assert identity.identify(f"/run/netns/{other}") != first
    finally:
        subprocess.run(["ip", "netns", "del", other], check=True)


def test_own_and_missing_namespaces_are_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="own"):
        identity.identify("/proc/self/ns/net")
    with pytest.raises(EnvironmentProblem, match="gone"):
        identity.identify("/run/netns/not-there")


def test_an_ordinary_file_is_no_namespace(tmp_path: os.PathLike[str]) -> None:
    path = f"{tmp_path}/file"
    with open(path, "w"):
        pass
    with pytest.raises(EnvironmentProblem, match="no network namespace"):
        identity.identify(path)


def test_addresses_without_loopback(netns: str) -> None:
    name = netns.rpartition("/")[2]
    for command in (
        f"-n {name} link set lo up",
        f"-n {name} link add eth0 type veth peer name eth1",
        f"-n {name} link set eth0 up",
        f"-n {name} addr add 10.1.2.3/24 dev eth0",
        f"-n {name} addr add fd00::3/64 dev eth0 nodad",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    assert identity.addresses(netns) == {ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("fd00::3")}
