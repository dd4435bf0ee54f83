"""The laptop cluster's network in the kernel: the fabric's namespace, one for each node, one for each pod.

Everything is found again by looking: a namespace by its pin, a pod's place by the name of its node's
interface, its sandbox by that interface's alias. So a restarted cluster process adopts what runs, and
half-made pods are recognised (no alias) and removed.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from ambit.core.errors import BadInput, EnvironmentProblem
from ambit.local import kernel
from ambit.local.fabric import rtnetlink, wiring
from ambit.local.fabric.interface import PodNetwork
from ambit.local.fabric.wiring import PodPlace
from ambit.local.layout import NETNS, NodeAddresses
from ambit.node.netns.enter import in_namespace, in_own_thread, new_namespace, set_namespace


class NetnsFabric:
    """`ambit.local.fabric.interface.Fabric` made of network namespaces, veth pairs and one bridge."""

    def __init__(self, nodes: Iterable[NodeAddresses], pins: Path = NETNS) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._pins = pins
        self._pods: dict[str, PodNetwork] = {}
        self._places: dict[str, PodPlace] = {}
        self._cursor: dict[str, int] = {}

    @property
    def pin(self) -> Path:
        """The fabric's own namespace."""
        return self._pins / wiring.BRIDGE

    def join(self) -> None:
        """Move the calling thread into the fabric's namespace, making it when it does not exist.

        Call it from the main thread before any other thread starts: threads inherit the namespace.
        Raises EnvironmentProblem.
        """
        with _explained("join the fabric's network namespace"):
            if _is_pinned(self.pin):
                set_namespace(self.pin)
                return
            self._pins.mkdir(parents=True, exist_ok=True)
            new_namespace()
            _pin_current(self.pin)

    async def prepare(self) -> None:
        """Make or complete the fabric and its nodes, and adopt the pods that are attached.

        Raises EnvironmentProblem.
        """
        await asyncio.to_thread(self._prepare)

    async def attach(self, sandbox: str, node: str) -> PodNetwork:
        if sandbox in self._pods:
            return self._pods[sandbox]
        if node not in self._nodes:
            raise BadInput(f"there is no node {node!r}", f"nodes are {', '.join(self._nodes)}")
        if sandbox == wiring.BRIDGE or sandbox in self._nodes or "/" in sandbox:
            raise BadInput(f"{sandbox!r} cannot name a sandbox")
        place = self._places[sandbox] = self._free_place(self._nodes[node])
        try:
            await asyncio.to_thread(self._attach, sandbox, place)
        except BaseException:
            del self._places[sandbox]
            raise
        network = self._pods[sandbox] = self._network(sandbox, place)
        return network

    async def detach(self, sandbox: str) -> None:
        place = self._places.get(sandbox)
        if place is not None and sandbox in self._pods:
            await asyncio.to_thread(self._detach, sandbox, place)
            self._pods.pop(sandbox, None)
            self._places.pop(sandbox, None)

    async def attached(self) -> tuple[PodNetwork, ...]:
        return tuple(self._pods.values())

    def _free_place(self, node: NodeAddresses) -> PodPlace:
        """The next free address after the one given last, so that an address rests before it is used
        again."""
        taken = {place.host for place in self._places.values() if place.node == node}
        size = wiring.LAST_HOST - wiring.FIRST_HOST + 1
        start = self._cursor.get(node.name, 0)
        for step in range(size):
            host = wiring.FIRST_HOST + (start + step) % size
            if host not in taken:
                self._cursor[node.name] = host - wiring.FIRST_HOST + 1
                return PodPlace(node, host)
        raise EnvironmentProblem(
            f"{node.name} has no free pod address", "delete pods or start more nodes: ambit up --nodes N"
        )

    def _network(self, sandbox: str, place: PodPlace) -> PodNetwork:
        return PodNetwork(sandbox, place.node.name, self._pins / sandbox, place.addresses)

    def _prepare(self) -> None:
        with _explained("build the fabric"):
            self._pins.mkdir(parents=True, exist_ok=True)
            for pin in (self.pin, *(self._pins / name for name in self._nodes)):
                if not _is_pinned(pin):
                    in_own_thread(partial(_new_pinned, pin))
            in_namespace(self.pin, self._build_fabric)
            for node in self._nodes.values():
                in_namespace(self._pins / node.name, partial(self._build_node, node))
            self._remove_stray_pins()

    def _build_fabric(self) -> None:
        nodes = self._nodes.values()
        _write_sysctls(wiring.SYSCTLS | wiring.ROUTER_SYSCTLS)
        rtnetlink.send([rtnetlink.add_bridge(wiring.BRIDGE, wiring.FABRIC_LINK_ADDRESS)])
        bridge = socket.if_nametoindex(wiring.BRIDGE)
        present = {link.name for link in rtnetlink.links()}
        for node in nodes:
            if node.name in present:
                continue
            with _opened(self._pins / node.name) as namespace:
                rtnetlink.send(
                    [
                        rtnetlink.add_veth(
                            node.name,
                            bytes((0x02, 0xF3, *node.index.to_bytes(2, "big"), 0, 1)),
                            wiring.NODE_INTERFACE,
                            wiring.uplink_link_address(node),
                            namespace,
                        )
                    ]
                )
        ports = [rtnetlink.set_up(socket.if_nametoindex(node.name), master=bridge) for node in nodes]
        rtnetlink.send(ports + wiring.fabric_requests(bridge, nodes))

    def _build_node(self, node: NodeAddresses) -> None:
        _write_sysctls(wiring.SYSCTLS | wiring.ROUTER_SYSCTLS)
        uplink = socket.if_nametoindex(wiring.NODE_INTERFACE)
        rtnetlink.send(wiring.node_requests(uplink, node, self._nodes.values()))
        load_table(wiring.guard_table(node))
        for link in rtnetlink.links():
            host = wiring.host_of(link.name)
            if host is None:
                continue
            if link.alias and _is_pinned(self._pins / link.alias):
                place = PodPlace(node, host)
                self._places[link.alias] = place
                self._pods[link.alias] = self._network(link.alias, place)
                self._cursor[node.name] = max(self._cursor.get(node.name, 0), host - wiring.FIRST_HOST + 1)
            else:
                rtnetlink.send([rtnetlink.delete_link(link.name)])

    def _remove_stray_pins(self) -> None:
        """Namespaces of pods whose attachment never finished."""
        known = {wiring.BRIDGE, *self._nodes, *self._pods}
        for pin in self._pins.iterdir():
            if pin.name not in known:
                _unpin(pin)

    def _attach(self, sandbox: str, place: PodPlace) -> None:
        pin = self._pins / sandbox
        with _explained(f"attach a pod to {place.node.name}"):
            try:
                in_own_thread(partial(_new_pinned, pin))
                with _opened(pin) as namespace:
                    in_namespace(self._pins / place.node.name, lambda: _add_pod_interface(place, namespace))
                in_namespace(pin, lambda: _configure_pod(place))
                in_namespace(self._pins / place.node.name, lambda: _finish_pod(place, sandbox))
            except OSError:
                self._remove(sandbox, place)
                raise

    def _detach(self, sandbox: str, place: PodPlace) -> None:
        with _explained(f"detach a pod from {place.node.name}"):
            self._remove(sandbox, place)

    def _remove(self, sandbox: str, place: PodPlace) -> None:
        in_namespace(
            self._pins / place.node.name,
            lambda: rtnetlink.send([rtnetlink.delete_link(place.interface)]),
        )
        _unpin(self._pins / sandbox)


def load_table(text: str) -> None:
    """Give nft text to the kernel as one transaction, in the calling thread's namespace.

    Raises EnvironmentProblem with nft's words.
    """
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise EnvironmentProblem("nft is not installed", "install the package nftables") from error
    if done.returncode != 0:
        raise EnvironmentProblem(f"nft refused a table: {done.stderr.strip()[:500]}")


def _add_pod_interface(place: PodPlace, namespace: int) -> None:
    rtnetlink.send(
        [
            rtnetlink.delete_link(place.interface),
            rtnetlink.add_veth(
                place.interface,
                place.node_link_address,
                wiring.POD_INTERFACE,
                place.link_address,
                namespace,
            ),
        ]
    )


def _configure_pod(place: PodPlace) -> None:
    rtnetlink.send(wiring.pod_requests(socket.if_nametoindex(wiring.POD_INTERFACE), place))


def _finish_pod(place: PodPlace, sandbox: str) -> None:
    rtnetlink.send(wiring.attach_requests(socket.if_nametoindex(place.interface), place, sandbox))


def _new_pinned(pin: Path) -> None:
    new_namespace()
    _write_sysctls(wiring.SYSCTLS)
    _pin_current(pin)


def _write_sysctls(sysctls: Mapping[str, str]) -> None:
    for key, value in sysctls.items():
        _write_sysctl(key, value)
    for key, value in wiring.OPTIONAL_SYSCTLS.items():
        with contextlib.suppress(OSError):
            _write_sysctl(key, value)


def _write_sysctl(key: str, value: str) -> None:
    descriptor = os.open(f"/proc/sys/{key}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _pin_current(pin: Path) -> None:
    """Keep the calling thread's network namespace under this name."""
    os.close(os.open(pin, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    kernel.mount("/proc/thread-self/ns/net", os.fspath(pin), flags=kernel.MS_BIND)


def _unpin(pin: Path) -> None:
    with contextlib.suppress(OSError):
        kernel.unmount(os.fspath(pin))
    with contextlib.suppress(FileNotFoundError):
        pin.unlink()


def _is_pinned(pin: Path) -> bool:
    """Whether a namespace is mounted there: an empty file left by a crash is on the directory's own
    device."""
    try:
        return pin.stat().st_dev != pin.parent.stat().st_dev
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(pin: Path) -> Iterator[int]:
    descriptor = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(intent: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = "run as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
        raise EnvironmentProblem(f"cannot {intent}: {error.filename}: {error.strerror}", hint) from error
