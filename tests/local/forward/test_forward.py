"""Forwards: the list, the files, and two real Envoys that carry bytes from the host into the fabric."""

import asyncio
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from bench.ports import free_port
from hypothesis import given
from hypothesis import strategies as st

from ambit.cli.commands.local_forward import has_datagrams
from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.local.fabric.interface import PodNetwork
from ambit.local.forward import config
from ambit.local.forward.config import Forward
from ambit.local.forward.controller import in_fabric, resolve
from ambit.local.forward.manager import Forwards
from ambit.local.forward.wanted import parse_wanted
from ambit.local.layout import StateDirectory
from tests.local.fabric.build import fabric, receiver
from tests.local.fabric.objects import service

GOLDEN = Path(__file__).parent / "golden.json"


def test_the_files_are_as_written_down(tmp_path: Path) -> None:
    forwards = Forwards(StateDirectory(tmp_path))
    forwards.set("web", 8080, ip_address("10.96.0.20"), 80)
    written = {
        path.name: msgspec.json.decode(path.read_bytes().replace(str(tmp_path).encode(), b"STATE"))
        for path in sorted((tmp_path / "host").glob("*.json"))
    }
    assert written == msgspec.json.decode(GOLDEN.read_bytes())
    assert stat.S_IMODE((tmp_path / "host").stat().st_mode) == 0o700


def test_the_list_refuses_a_port_twice_and_replaces_a_name(tmp_path: Path) -> None:
    forwards = Forwards(StateDirectory(tmp_path))
    assert forwards.entries() == ()
    first = forwards.set("web", 8080, ip_address("10.96.0.20"), 80)
    with pytest.raises(BadInput, match="already leads to web"):
        forwards.set("other", 8080, ip_address("10.96.0.21"), 80)
    assert forwards.entries() == (first,)
    moved = forwards.set("web", 8080, ip_address("10.96.0.22"), 80)
    assert forwards.entries() == (moved,)
    assert forwards.remove("web")
    assert not forwards.remove("web")
    assert forwards.entries() == ()
    for port in (0, 65536, -1):
        with pytest.raises(BadInput):
            forwards.set("web", port, ip_address("10.96.0.22"), 80)


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    forwards = Forwards(StateDirectory(tmp_path))
    forwards.write()
    (tmp_path / "host" / "forwards.json").write_text("[{")
    with pytest.raises(BadInput) as caught:
        forwards.entries()
    assert caught.value.hint.startswith("remove ")


def test_wanted_forwards_wait_for_their_service_and_take_its_ipv4_address() -> None:
    wanted = parse_wanted(
        """
        - {namespace: default, service: web, port: 80, hostPort: 8080}
        - {namespace: default, service: later, port: 80, hostPort: 8081}
        - {namespace: default, service: headless, port: 80, hostPort: 8082}
        - {namespace: default, service: second, port: 80, hostPort: 8080}
        - {namespace: default, service: second, port: 53, hostPort: 8053, protocol: UDP}
        """
    )
    services = [
        service("web", "fd00:10:96::20", "10.96.0.20"),
        service("second", "10.96.0.21"),
        service("headless", "None"),
    ]
    assert resolve(wanted, services) == (
        Forward("default/web:80", 8080, "10.96.0.20", 80),
        Forward("default/second:53/udp", 8053, "10.96.0.21", 53, "UDP"),
    )


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans()), max_size=12)


@given(steps)
def test_the_list_behaves_as_a_dictionary_with_unique_ports(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, bool]]
) -> None:
    forwards = Forwards(StateDirectory(tmp_path_factory.mktemp("state")))
    expected: dict[str, int] = {}
    for name, port, add in changes:
        if add and port in [taken for other, taken in expected.items() if other != name]:
            with pytest.raises(BadInput):
                forwards.set(name, port, ip_address("10.0.0.1"), 80)
        elif add:
            forwards.set(name, port, ip_address("10.0.0.1"), 80)
            expected[name] = port
        else:
            assert forwards.remove(name) is (expected.pop(name, None) is not None)
        assert {forward.name: forward.host_port for forward in forwards.entries()} == expected


def started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@asynccontextmanager
async def running(forwards: Forwards, netns: Path) -> AsyncIterator[None]:
    forwards.write()
    inner = started(in_fabric(forwards.inner_command(), netns))
    outer = started(forwards.outer_command())
    try:
        yield
    finally:
        for process in (inner, outer):
            process.kill()
            await asyncio.to_thread(process.wait)


@asynccontextmanager
async def forwarding(tmp_path: Path) -> AsyncIterator[tuple[Forwards, PodNetwork]]:
    """Both forwarders, and a pod in the fabric."""
    pins = tmp_path / "netns"
    pins.mkdir()
    forwards = Forwards(StateDirectory(tmp_path / "s"))
    async with fabric(pins) as built:
        pod = await built.attach("a", "node1")
        async with running(forwards, built.pin):
            yield forwards, pod


async def echo_through(port: int, text: bytes) -> bytes:
    """Sends, closes its half, reads to the end; tried until the forward is there."""
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(text)
                writer.write_eof()
                answer = await reader.read()
                writer.close()
            except OSError:
                answer = b""
            if answer:
                return answer
            await asyncio.sleep(0.05)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read())[::-1])
    writer.close()


@pytest.mark.netns
@pytest.mark.envoy
async def test_bytes_from_the_host_reach_pods_and_changes_apply_at_once(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (forwards, pod):
        ports = [free_port(), free_port()]
        for port, address in zip(ports, pod.addresses, strict=True):
            listener = receiver(pod.netns, address, socket.SOCK_STREAM)
            listener.setblocking(False)
            async with await asyncio.start_server(echo, sock=listener) as server:
                forwards.set(str(address), port, address, listener.getsockname()[1])
                assert await echo_through(port, b"hello") == b"olleh"
                assert await echo_through(port, b"x" * 1_000_000) == b"x" * 1_000_000
                server.close()
        assert stat.S_IMODE((tmp_path / "s" / "host" / f"forward-{ports[0]}.sock").stat().st_mode) == 0o600
        assert not host_port_is_free(ports[0])
        for forward in forwards.entries():
            forwards.remove(forward.name)
        async with asyncio.timeout(60):
            while not all(host_port_is_free(port) for port in ports):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def reverse(server: socket.socket) -> None:
    asked, peer = server.recvfrom(65_535)
    server.sendto(asked[::-1], peer)


@contextmanager
def reversing(pod: PodNetwork, address: Address) -> Iterator[int]:
    """The port of a server of the pod that answers datagrams."""
    loop = asyncio.get_running_loop()
    with closing(receiver(pod.netns, address, socket.SOCK_DGRAM)) as server:
        loop.add_reader(server, partial(reverse, server))
        try:
            yield server.getsockname()[1]
        finally:
            loop.remove_reader(server)


async def answer_to(port: int, text: bytes) -> bytes:
    """To one datagram, which is sent until the forward is there."""
    loop = asyncio.get_running_loop()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sending:
        sending.setblocking(False)
        sending.connect(("127.0.0.1", port))
        async with asyncio.timeout(60):
            while True:
                try:
                    sending.send(text)
                    async with asyncio.timeout(0.3):
                        return await loop.sock_recv(sending, 65_535)
                except OSError:  # refused, or nobody in time
                    await asyncio.sleep(0.05)


@pytest.mark.netns
@pytest.mark.envoy
async def test_datagrams_from_the_host_reach_pods(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (forwards, pod):
        for address in pod.addresses:
            port = free_port()
            with reversing(pod, address) as served:
                forwards.set(str(address), port, address, served, "UDP")
                assert await answer_to(port, b"hello") == b"olleh"
                assert await answer_to(port, b"x" * 60_000) == b"x" * 60_000
                forwards.remove(str(address))


@pytest.mark.netns
@pytest.mark.envoy
async def test_the_inner_forwarder_may_read_of_listeners_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy looks at each file by itself, and at one that it has refused not again."""
    async with forwarding(tmp_path) as (forwards, pod):
        port, address = free_port(), pod.addresses[0]
        with reversing(pod, address) as served:
            with monkeypatch.context() as patch:
                patch.setattr(config, "inner_clusters", lambda _: {"resources": []})
                made = forwards.set("a", port, address, served, "UDP")
                async with asyncio.timeout(60):
                    while not forwards.inner.socket(made).exists():  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            forwards.write()
            assert await answer_to(port, b"hello") == b"olleh"
            assert has_datagrams(port)


def host_port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be bound. Only tells the truth in the host's network namespace."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
