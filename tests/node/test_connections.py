"""What a namespace's sockets tell about its pod's connections."""

import ipaddress
import socket

from hypothesis import given
from hypothesis import strategies as st

from ambit.core.names import DIRECT_MARK
from ambit.node.connections import Open, sorted_out
from ambit.node.netns import sockets
from ambit.node.netns.sockets import Socket

POD, OTHER, LOOPBACK = "10.1.0.1", "10.2.0.2", "127.0.0.1"
OWN = frozenset({ipaddress.ip_address(POD)})
MARK = 0x539


def end(
    local: tuple[str, int],
    peer: tuple[str, int] = ("0.0.0.0", 0),
    *,
    cookie: int = 0,
    mark: int = 0,
    state: int = sockets.ESTABLISHED,
) -> Socket:
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    one, two = (ipaddress.ip_address(each[0]) for each in (local, peer))
    return Socket(one, local[1], two, peer[1], family, b"", cookie, mark, state)


def listens(port: int) -> Socket:
    return end(("0.0.0.0", port), state=sockets.LISTENS)


def ways(found: Open) -> dict[str, list[tuple[str, int, str, int]]]:
    return {
        name: [
            (str(each.client), each.client_port, str(each.destination), each.destination_port)
            for each in getattr(found, name)
        ]
        for name in found.__struct_fields__
        if getattr(found, name)
    }


OPENED = [end((POD, 40000), (OTHER, 80), cookie=1), end((LOOPBACK, 15001), (POD, 40000))]
DELIVERED = [
    end((OTHER, 50000), (POD, 8080), mark=MARK),
    end((POD, 8080), (OTHER, 50000), cookie=2),
    listens(8080),
]
PASSED_ON = end((POD, 41000), ("192.0.2.1", 443), cookie=3, mark=MARK)
TUNNEL = end((POD, 42000), (OTHER, 15008), cookie=4, mark=MARK)
ACCEPTED_TUNNEL = end((POD, 15008), (OTHER, 50001), cookie=5)
MESH = [*OPENED, *DELIVERED, PASSED_ON, TUNNEL, ACCEPTED_TUNNEL]


def test_what_was_accepted_directly_while_the_pod_was_leaving_is_older_than_the_mesh() -> None:
    direct = end((POD, 8080), (OTHER, 51002), cookie=6, mark=DIRECT_MARK)
    found = sorted_out([*DELIVERED, direct], OWN, before={6})
    assert ways(found)["pre_mesh_inbound"] == [(OTHER, 51002, POD, 8080)]
    assert "pre_mesh_inbound" not in ways(sorted_out([*DELIVERED, direct], OWN))


def test_what_goes_through_the_proxy() -> None:
    wanted = {
        "outbound": [(POD, 40000, OTHER, 80)],
        "delivered": [(OTHER, 50000, POD, 8080)],
    }
    assert ways(sorted_out(MESH, OWN)) == wanted
    # Also when all of it might be older: its other end is there.
    assert ways(sorted_out(MESH, OWN, before=range(10))) == wanted


def test_plain_text_is_told_from_tunnels_and_shown_once() -> None:
    accepted = end((POD, 15006), (OTHER, 33333))
    client, destination = (ipaddress.ip_address(OTHER), 33333), (ipaddress.ip_address(POD), 8080)
    second = end((OTHER, 50002), (POD, 8080), mark=MARK)
    tracked = {(15006, *client): (client, destination)}
    found = ways(sorted_out([*DELIVERED, second, accepted], OWN, tracked=tracked))
    assert found["plaintext"] == [(OTHER, 33333, POD, 8080)]
    assert len(found["delivered"]) == 1
    assert len(ways(sorted_out([*DELIVERED, second, accepted], OWN))["delivered"]) == 2


def test_a_port_that_was_changed_on_the_way_to_the_proxy() -> None:
    """The pod uses one port for two destinations."""
    apart = end((POD, 40000), (OTHER, 81), cookie=6)
    moved = end((LOOPBACK, 15001), (POD, 1024))
    client = ipaddress.ip_address(POD)
    tracked = {(15001, client, 1024): ((client, 40000), (ipaddress.ip_address(OTHER), 81))}
    found = ways(sorted_out([*OPENED, apart, moved], OWN, tracked=tracked))
    assert found == {"outbound": [(POD, 40000, OTHER, 80), (POD, 40000, OTHER, 81)]}


def test_older_than_enrolment() -> None:
    old = [
        listens(8080),
        end((POD, 8080), (OTHER, 51000), cookie=10),
        end((POD, 45000), (OTHER, 5432), cookie=11),
        end((POD, 2000), (OTHER, 51001), cookie=12),  # what it was accepted from does not listen any more
        end((POD, 46000), (POD, 8080), cookie=13),
        end((LOOPBACK, 47000), (LOOPBACK, 8080), cookie=14),
    ]
    found = sorted_out([*old, *MESH], OWN, before=range(20))
    assert ways(found)["pre_mesh_inbound"] == [(OTHER, 51000, POD, 8080), (OTHER, 51001, POD, 2000)]
    assert ways(found)["pre_mesh_outbound"] == [(POD, 45000, OTHER, 5432)]
    assert found.pre_mesh == {10, 11, 12}


def test_a_mesh_connection_that_lost_the_proxys_end_is_not_older() -> None:
    orphan = end((POD, 40000), (OTHER, 80), cookie=30, state=8)
    assert ways(sorted_out([orphan], OWN, before=range(20))) == {}
    assert ways(sorted_out([orphan], OWN, before=[30])) != {}


def test_a_pod_that_is_captured_without_nat() -> None:
    """The proxy's ends have the other side's address; who accepted them tell their marks."""
    outbound, plaintext, dns = 0x1539, 0x2539, 0x4539
    resolver = ("192.0.2.53", 53)
    sockets_there = [
        end((POD, 40000), (OTHER, 80), cookie=1),
        end((OTHER, 80), (POD, 40000), cookie=2, mark=outbound),
        end((POD, 40000), (OTHER, 81), cookie=3),
        end((OTHER, 81), (POD, 40000), cookie=4, mark=outbound),
        end((OTHER, 82), (POD, 40002), cookie=5, mark=outbound),  # the pod has forgotten its end
        end((POD, 8080), (OTHER, 33333), cookie=6, mark=plaintext),
        end((OTHER, 33333), (POD, 8080), cookie=7, mark=MARK),
        end((POD, 8080), (OTHER, 33333), cookie=8),
        end((POD, 40003), resolver, cookie=9),
        end(resolver, (POD, 40003), cookie=10, mark=dns),
        *DELIVERED,
        PASSED_ON,
        TUNNEL,
    ]
    wanted = {
        "outbound": [(POD, 40000, OTHER, 80), (POD, 40000, OTHER, 81), (POD, 40002, OTHER, 82)],
        "delivered": [(OTHER, 50000, POD, 8080)],
        "plaintext": [(OTHER, 33333, POD, 8080)],
    }
    assert ways(sorted_out(sockets_there, OWN)) == wanted


@given(st.sets(st.integers(1, 14)), st.permutations(MESH))
def test_nothing_is_older_that_was_not_there_or_has_its_other_end(
    before: set[int], found: list[Socket]
) -> None:
    assert sorted_out(found, OWN, before).pre_mesh == frozenset()
