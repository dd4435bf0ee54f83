"""Netlink messages against what the kernel and `ip` understand."""

import json
import socket
import subprocess
from ipaddress import ip_address, ip_network

import pytest

from ambit.local.fabric import rtnetlink
from ambit.node.netns.enter import in_own_thread, new_namespace

pytestmark = pytest.mark.netns


def shown(*words: str) -> list[dict[str, object]]:
    done = subprocess.run(["ip", "-json", *words], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout or "[]"))


def test_ip_shows_what_was_asked_for() -> None:
    def inside() -> None:
        new_namespace()
        rtnetlink.send([rtnetlink.add_bridge("br0", bytes.fromhex("020000000001"))])
        index = socket.if_nametoindex("br0")
        rtnetlink.send(
            [
                rtnetlink.set_up(index),
                rtnetlink.set_alias(index, "a name"),
                rtnetlink.add_address(index, ip_address("10.1.0.1"), 24),
                rtnetlink.add_address(index, ip_address("fd00::1"), 64),
                rtnetlink.add_route(ip_network("10.2.0.0/16"), index, gateway=ip_address("10.1.0.9")),
                rtnetlink.refuse_route(ip_network("10.3.0.0/16")),
                rtnetlink.add_neighbour(index, ip_address("10.1.0.9"), bytes.fromhex("020000000009")),
            ]
        )
        assert rtnetlink.Link(index, "br0", "a name") in rtnetlink.links()
        (link,) = shown("addr", "show", "br0")
        assert link["address"] == "02:00:00:00:00:01"
        assert {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]} >= {  # type: ignore[attr-defined,index]
            "10.1.0.1/24",
            "fd00::1/64",
        }
        routes = {str(route["dst"]): route for route in shown("route")}
        assert routes["10.2.0.0/16"]["gateway"] == "10.1.0.9"
        assert routes["10.3.0.0/16"]["type"] == "unreachable"
        (neighbour,) = shown("neigh", "show", "10.1.0.9")
        assert (neighbour["lladdr"], neighbour["state"]) == ("02:00:00:00:00:09", ["PERMANENT"])

    in_own_thread(inside)


def test_the_first_failure_is_named_and_the_rest_was_tried() -> None:
    def inside() -> None:
        new_namespace()
        with pytest.raises(OSError, match="No such device") as caught:
            rtnetlink.send(
                [
                    rtnetlink.set_up(4711),
                    rtnetlink.add_bridge("br1", bytes.fromhex("020000000001")),
                    rtnetlink.delete_link("missing"),
                ]
            )
        assert caught.value.filename == "interface 4711 up"
        assert "br1" in {link.name for link in rtnetlink.links()}

    in_own_thread(inside)
