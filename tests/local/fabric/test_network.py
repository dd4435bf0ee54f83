"""The fabric in the kernel: reachability, adoption after a crash, forged sources, speed."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ambit.core.errors import BadInput
from ambit.core.names import PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, PROBE_MARK
from ambit.local.fabric import rtnetlink
from ambit.local.fabric.network import NetnsFabric
from ambit.node.netns.enter import in_namespace
from tests.local.fabric.build import NODES, PATIENCE, arrives, delivered, fabric, receiver, send

pytestmark = pytest.mark.netns


async def test_every_pair_of_places_is_connected_in_both_families(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a, b, c = [
            await built.attach(name, node) for name, node in (("a", "node1"), ("b", "node1"), ("c", "node2"))
        ]
        assert [str(address) for address in a.addresses] == ["10.244.1.2", "fd00:10:244:1::2"]
        places = [a.netns, tmp_path / "node1", tmp_path / "node2", built.pin]
        for target in (b, c):
            for address in target.addresses:
                with receiver(target.netns, address) as sock:
                    for place in places:
                        to = (str(address), sock.getsockname()[1])
                        assert delivered(sock, place, to), f"{place} -> {address}"
        for address in ("172.30.0.1", "fd00:ac1e::1"):
            with in_namespace(built.pin, lambda address=address: _bound(address)) as sock:
                to = (address, sock.getsockname()[1])
                assert delivered(sock, c.netns, to) in {str(at) for at in c.addresses}


async def test_source_addresses_are_kept_and_probes_use_their_own(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a, c = await built.attach("a", "node1"), await built.attach("c", "node2")
        for own, at, probe in zip(
            a.addresses, c.addresses, (PROBE_ADDRESS_V4, PROBE_ADDRESS_V6), strict=True
        ):
            with receiver(c.netns, at) as sock:
                to = (str(at), sock.getsockname()[1])
                assert delivered(sock, a.netns, to) == str(own)
                assert delivered(sock, tmp_path / "node2", to, source=probe) == probe


@pytest.mark.parametrize("target", ["b", "c"])
async def test_forged_sources_never_arrive(tmp_path: Path, target: str) -> None:
    async with fabric(tmp_path) as built:
        a = await built.attach("a", "node1")
        other = await built.attach("other", "node1")
        victim = await built.attach(target, "node1" if target == "b" else "node2")
        for family in (0, 1):
            at = victim.addresses[family]
            with receiver(victim.netns, at) as sock:
                sock.settimeout(0.3)
                forged = [str(other.addresses[family]), (PROBE_ADDRESS_V4, PROBE_ADDRESS_V6)[family]]
                for source in forged:
                    send(a.netns, (str(at), sock.getsockname()[1]), source=source)
                    assert arrives(sock) is None, source
                own = str(a.addresses[family])
                assert delivered(sock, a.netns, (str(at), sock.getsockname()[1]), source=own) == own
        with receiver(victim.netns, victim.addresses[0]) as sock:
            sock.settimeout(0.3)
            if target == "c":
                send(
                    tmp_path / "node1",
                    (str(victim.addresses[0]), sock.getsockname()[1]),
                    source=PROBE_ADDRESS_V4,
                )
                assert arrives(sock) is None


async def test_a_new_process_adopts_what_is_attached_and_removes_what_is_half_made(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a, c = await built.attach("a", "node1"), await built.attach("c", "node2")
        gone = await built.attach("gone", "node1")
        index = in_namespace(tmp_path / "node1", lambda: socket.if_nametoindex("pod3"))
        in_namespace(tmp_path / "node1", lambda: rtnetlink.send([rtnetlink.set_alias(index, "")]))
        with receiver(a.netns, a.addresses[0]) as sock:
            again = NetnsFabric(NODES, tmp_path)
            await again.prepare()
            assert set(await again.attached()) == {a, c}
            assert await again.attach("a", "node1") == a
            assert not gone.netns.exists()
            to = (str(a.addresses[0]), sock.getsockname()[1])
            assert delivered(sock, c.netns, to) == str(c.addresses[0])
        fresh = await again.attach("fresh", "node1")
        assert fresh.addresses not in (a.addresses, c.addresses)


async def test_detach_frees_everything_and_may_be_repeated(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a = await built.attach("a", "node1")
        for _ in range(2):
            await built.detach("a")
        assert not a.netns.exists()
        assert await built.attached() == ()
        names = in_namespace(tmp_path / "node1", lambda: {link.name for link in rtnetlink.links()})
        assert names >= {"lo", "eth0"}
        assert not any(name.startswith("pod") for name in names)


async def test_unused_pod_addresses_are_refused_at_once(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a = await built.attach("a", "node1")
        for address in ("10.244.1.200", "10.244.2.200", "8.8.8.8", "fd00:10:244:2::99", "2001:db8::1"):
            with pytest.raises(OSError, match=r"unreachable|No route"):
                in_namespace(a.netns, lambda address=address: socket.create_connection((address, 80), 2))


async def test_names_that_cannot_be_sandboxes_are_refused(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        for name in ("fabric", "node1", "a/b"):
            with pytest.raises(BadInput):
                await built.attach(name, "node1")
        with pytest.raises(BadInput):
            await built.attach("a", "node9")


def processor_seconds() -> float:
    """What this process, the kernel for it, and its children have used: others on the machine do not count."""
    return sum(os.times()[:4])


async def test_speed(tmp_path: Path) -> None:
    start = processor_seconds()
    async with fabric(tmp_path) as built:
        prepared = processor_seconds()
        await asyncio.gather(*(built.attach(f"p{number}", "node1") for number in range(20)))
        attached = processor_seconds()
    assert prepared - start < 0.3  # measured 0.03 s
    assert (attached - prepared) / 20 < 0.03  # measured 0.006 s


def test_an_ordinary_user_can_build_it_in_a_user_namespace(tmp_path: Path) -> None:
    script = """
        import asyncio, pathlib
        from ambit.local.fabric.network import NetnsFabric
        from ambit.local.layout import NodeAddresses
        async def main():
            built = NetnsFabric([NodeAddresses(1), NodeAddresses(2)], pathlib.Path("/run/pins"))
            built.join()
            await built.prepare()
            pod = await built.attach("a", "node1")
            print(*pod.addresses)
        asyncio.run(main())
    """
    command = ["unshare", "-Urmnpi", "--fork", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    command += [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.stdout == "10.244.1.2 fd00:10:244:1::2\n", done.stderr


def _bound(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.bind((address, 0))
    return sock


async def test_only_the_pod_runner_opens_connections_from_the_probes_source(tmp_path: Path) -> None:
    """Pods with hostNetwork are in the node's namespace as well; only who may set marks has that source."""
    async with fabric(tmp_path) as built:
        at = await built.attach("c", "node2")
        for address, source in zip(at.addresses, (PROBE_ADDRESS_V4, PROBE_ADDRESS_V6), strict=True):
            with receiver(at.netns, address, socket.SOCK_STREAM) as server:
                to = server.getsockname()[:2]
                assert _dialled(tmp_path / "node2", to, "", 0) == ""
                assert _dialled(tmp_path / "node2", to, source, PROBE_MARK) == ""
                assert _dialled(tmp_path / "node2", to, source, 0) == "Connection refused"


def _dialled(netns: Path, to: tuple[str, int], source: str, mark: int) -> str:
    """Why no connection was made; empty for one."""

    def dial() -> str:
        with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET) as dialled:
            dialled.settimeout(PATIENCE)
            if mark:
                dialled.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            if source:
                dialled.bind((source, 0))
            try:
                dialled.connect(to)
            except OSError as problem:
                return str(problem.strerror)
            return ""

    return in_namespace(netns, dial)
