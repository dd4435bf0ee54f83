"""Whole agents: enrolment, policy, restarts, with real Envoys and pods in network namespaces."""

import asyncio
import ipaddress
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ambit.agent import connection_metrics as flow_metrics
from ambit.agent.record import Flow, Reporter
from ambit.core.address import Address
from ambit.core.names import BYPASS_INBOUND_ANNOTATION, NOT_CAPTURED_ANNOTATION
from ambit.envoy import names
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.service import Service, VirtualAddress
from ambit.model.workload import TunnelProtocol
from ambit.node.capture import apply as capture
from ambit.node.capture import probes, ruleset
from ambit.node.capture.ruleset import Capture
from ambit.node.configuration import detours
from ambit.node.connections import Connection, look
from ambit.node.flows import collector
from ambit.node.netns import counters, identity, nft
from ambit.node.netns.enter import in_namespace
from ambit.node.process import NodeAgent
from ambit.node.state.mesh import Stored
from ambit.node.supervise.table import State
from ambit.plan.values import CLUSTER, LISTENER
from tests.node.world import REDIRECTION, Node, Pod, World, making, until
from tests.plan.dataplane.network import REFUSED

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


def deny(account: str) -> Authorization:
    principal = Exact(f"cluster.local/ns/default/sa/{account}")
    rule = Rule((Clause((Match(principals=(principal,)),)),))
    return Authorization("deny", "default", Scope.NAMESPACE, Action.DENY, (rule,))


async def pair(world: World) -> tuple[Pod, Pod]:
    """A client on one node and a server on another, both in the mesh, serving 8080."""
    one, two = await world.node("node1"), await world.node("node2")
    client = await world.pod("client", one, "client")
    server = await world.pod("server", two, "server")
    server.listen(8080)
    for node in (one, two):
        assert node.agent is not None
        await until(lambda node=node: node.agent.state.workload_by_address("", server.four) is not None)
    return client, server


def ended(connection: socket.socket) -> bool:
    """Whether the other side ends it, by whatever means, before its time-out."""
    try:
        return connection.recv(10) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def open_into(agent: NodeAgent, server: Pod) -> tuple[Connection, ...]:
    """What the proxy delivers to `server`."""
    pod = next(each for each in agent.configuration.pods if server.four in each.addresses)
    return look(pod).delivered


async def eventually(client: Pod, server: Pod, expected: str, **how: object) -> None:
    async with asyncio.timeout(60):
        while (answer := await client.says(server, **how)) != expected:  # type: ignore[arg-type]  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert answer == expected


async def test_two_pods_on_two_nodes_talk_and_policy_decides(world: World) -> None:
    client, server = await pair(world)
    assert client.annotations[REDIRECTION] == "enabled"
    await eventually(client, server, f"{client.four} 2")
    await eventually(client, server, f"{client.six} 2", v6=True)
    two = world.nodes["node2"].agent
    assert two is not None
    held = await asyncio.to_thread(client.connect, server.four, 8080)
    held.sendall(b"half")
    await until(lambda: bool(open_into(two, server)))
    await world.control.put(deny("client"))
    held.settimeout(60)
    assert await asyncio.to_thread(ended, held)
    await eventually(client, server, REFUSED)
    await until(lambda: two.cut == 1)
    await until(lambda: any(flow.cut for flow in two.flows.newest()))
    (told,) = [flow for flow in two.flows.newest() if flow.cut]
    assert (told.decision, told.policy, told.received) == ("deny", "default/deny[0]", len(b"half"))
    await world.control.put(remove=("default/deny",))
    await eventually(client, server, f"{client.four} 2")


async def test_a_connection_gets_there_while_what_follows_from_a_change_is_computed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's tunnel comes back; its client's listener may hear of that before everything else does."""
    monkeypatch.setattr(detours, "GRACE", 0.0)
    client, server = await pair(world)
    agent = world.nodes["node1"].agent
    assert agent is not None
    one = client.sandbox
    key = names.pod_key(one.namespace, one.name, one.sandbox)
    asked, tunnelled = (form(key, server.four, 8080) for form in (names.destination, names.tunnelled))
    tunnel = agent.state.workload_by_address("", server.four)
    assert tunnel is not None
    assert tunnel.tunnel is TunnelProtocol.HBONE
    prepared = agent.configuration.prepare(key, [(server.four, 8080)])
    assert prepared is not None
    await prepared.settled()
    async with asyncio.timeout(60):
        while (into := agent.server.store.get(CLUSTER, tunnelled)) is None:
            assert await client.says(server) == f"{client.four} 2"
    await world.control.put(msgspec.structs.replace(tunnel, tunnel=TunnelProtocol.NONE))
    await until(lambda: agent.server.store.get(CLUSTER, tunnelled) != into)
    await agent.server.latest(CLUSTER).settled()

    go_on = asyncio.Event()
    applied = agent.subscription._applied

    async def later(stored: Stored) -> str | None:
        await go_on.wait()
        return await applied(stored)

    monkeypatch.setattr(agent.subscription, "_applied", later)
    await world.control.put(tunnel)
    await until(lambda: agent.state.workload_by_address("", server.four) == tunnel)
    before = agent.server.store.revision(LISTENER)
    is_first = agent.server.store.get(CLUSTER, asked) is None
    assert await client.says(server) == f"{client.four} 2"
    # What is asked for the first time is looked at at once.
    await until(lambda: agent.server.store.revision(LISTENER) > before or not is_first)
    await agent.server.latest(LISTENER).settled()
    for _ in range(5):
        assert await client.says(server) == f"{client.four} 2"
    go_on.set()
    await eventually(client, server, f"{client.four} 2")


async def test_a_restarted_agent_takes_everything_back(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    held = await asyncio.to_thread(client.connect, server.four, 8080)
    node = world.nodes["node1"]
    assert node.agent is not None
    while len(node.agent.configuration.destinations) < 2:
        # Later connections go straight into a tunnel, which is another question than the first one's.
        assert await client.says(server) == f"{client.four} 2"
    before = node.agent.supervisor.status.current
    await node.stop()
    assert await client.says(server) == f"{client.four} 2"
    agent = await node.start(ready=False)
    await until(lambda: agent.supervisor.status.current == before)
    await until(lambda: agent.server.connected == 1)
    assert await client.says(server) == f"{client.four} 2"
    other = await world.pod("other", node, "other")
    assert await other.says(server) == f"{other.four} 2"
    held.sendall(b"still")
    held.shutdown(1)
    assert await asyncio.to_thread(held.recv, 100) == f"{client.four} 5".encode()


@pytest.mark.feature("F46", "N1")
async def test_pods_keep_their_dns_until_their_rules_are_looked_over(world: World) -> None:
    node = await world.node("node1", dns_capture=False)
    old = await world.pod("old", node)
    assert await capture.is_redirected(str(old.netns), Capture(dns=False))
    agent = await again(node, dns_capture=True, reconcile=False)
    new = await world.pod("new", node)
    assert await capture.is_redirected(str(new.netns), Capture())
    assert await capture.is_redirected(str(old.netns), Capture(dns=False))
    assert agent.names.of(old.uid) is None
    agent = await again(node, dns_capture=True, reconcile=True)
    for _ in range(1000):
        if await capture.is_redirected(str(old.netns), Capture()):
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the rules stayed as they were")
    assert agent.names.of(old.uid) is not None


async def test_without_nat_what_reaches_a_running_pod_stays_captured(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answers could not leave. The next agent finds the annotation, says so, and the host's probes still pass."""
    node = await world.node("node1", capture="tproxy")
    pod = await world.pod("web", node)
    captured = Capture(transparent=True, addresses=tuple(pod.addresses))
    assert await capture.is_redirected(str(pod.netns), captured)
    pod.annotations[BYPASS_INBOUND_ANNOTATION] = "true"
    agent = await again(node, capture="tproxy")
    await until(lambda: "pod default/web: what reaches it stays captured" in caplog.text)
    assert await capture.is_redirected(str(pod.netns), captured)
    assert [each.inbound for each in agent.enroller.sandboxes.values()] == [True]


async def test_without_nat_a_pod_is_captured_as_it_is_when_the_agents_state_is_lost(world: World) -> None:
    """Rules for NAT beside the routing of capture without it would let nothing through."""
    node = await world.node("node1", capture="tproxy")
    pod = await world.pod("web", node)
    captured = Capture(transparent=True, addresses=tuple(pod.addresses))
    assert await capture.is_redirected(str(pod.netns), captured)
    await node.end()
    shutil.rmtree(world.directory / "node1-state")
    agent = await node.start()
    await until(lambda: pod.uid in agent.enroller.sandboxes and not agent.enroller.pending)
    assert await capture.is_redirected(str(pod.netns), captured)
    assert [each.transparent for each in agent.enroller.sandboxes.values()] == [True]


async def again(node: Node, **settings: object) -> NodeAgent:
    """The agent ends and starts with other settings."""
    assert node.agent is not None
    await node.stop()
    node.more = settings
    return await node.start()


async def test_a_killed_envoy_comes_back_and_nothing_bypasses(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    agent = world.nodes["node1"].agent
    assert agent is not None
    current = agent.supervisor.status.current
    assert current is not None
    os.kill(current.pid, signal.SIGKILL)
    await until(lambda: agent.supervisor.state is not State.SERVING)
    await eventually(client, server, f"{client.four} 2")
    assert agent.supervisor.status.crashes == 1


async def test_a_hot_restart_loses_no_new_connection(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    agent = world.nodes["node1"].agent
    assert agent is not None
    restart = asyncio.ensure_future(agent.supervisor.restart())
    answers = {await client.says(server)}
    while not restart.done():
        answers.add(await client.says(server))
    await restart
    for _ in range(20):
        answers.add(await client.says(server))
    assert answers == {f"{client.four} 2"}


async def test_labels_of_a_running_pod_are_followed(world: World) -> None:
    _, server = await pair(world)
    late = await world.pod("late", world.nodes["node1"], "late", enrol=False)
    await until(lambda: late.annotations.get(REDIRECTION) == "enabled")
    await eventually(late, server, f"{late.four} 2")
    held = await asyncio.to_thread(late.connect, server.four, 8080)
    held.sendall(b"held")
    world.api.label("pods", "default", "late", **{"istio.io__dataplane-mode": "none"})
    await until(lambda: REDIRECTION not in late.annotations)
    agent = world.nodes["node1"].agent
    assert agent is not None
    await eventually(late, server, f"{late.four} 2")
    assert late.uid in agent.enroller.sandboxes
    held.sendall(b" on")
    held.shutdown(socket.SHUT_WR)
    assert await asyncio.to_thread(held.recv, 100) == f"{late.four} 7".encode()
    held.close()
    await until(lambda: late.uid not in agent.enroller.sandboxes)
    assert agent.enroller.stopped == 1
    await eventually(late, server, f"{late.four} 2")
    world.api.label("pods", "default", "late")
    await until(lambda: late.annotations.get(REDIRECTION) == "enabled")
    await eventually(late, server, f"{late.four} 2")


async def test_a_connection_of_a_client_that_left_the_mesh_is_cut_by_its_identity(world: World) -> None:
    _, server = await pair(world)
    late = await world.pod("late", world.nodes["node1"], "late")
    await eventually(late, server, f"{late.four} 2")
    held = await asyncio.to_thread(late.connect, server.four, 8080)
    held.sendall(b"held")
    two = world.nodes["node2"].agent
    assert two is not None
    await until(lambda: bool(open_into(two, server)))
    world.api.label("pods", "default", "late", **{"istio.io__dataplane-mode": "none"})
    await until(lambda: not is_hbone(two, late))
    assert open_into(two, server)
    await world.control.put(deny("late"))
    held.settimeout(60)
    assert await asyncio.to_thread(ended, held)
    held.close()


def is_hbone(agent: NodeAgent, pod: Pod) -> bool:
    record = agent.state.workload_by_address("", pod.four)
    return record is not None and record.tunnel is TunnelProtocol.HBONE


async def test_an_annotation_that_somebody_else_wrote_is_taken_back(world: World) -> None:
    """Whether it was there from the start or came later; only the node's agent knows the truth."""
    await pair(world)
    liar = Pod(
        await asyncio.to_thread(world.network.host, "liar"), world, "liar", world.nodes["node1"], "liar"
    )
    liar.create(**{"istio.io/dataplane-mode": "none"})
    pod = world.api.objects["pods"]["default", "liar"]
    pod["metadata"]["annotations"] = {REDIRECTION: "enabled"}
    liar.began()
    await until(lambda: REDIRECTION not in liar.annotations)
    pod = world.api.objects["pods"]["default", "liar"]
    world.api.put("pods", {**pod, "metadata": {**pod["metadata"], "annotations": {REDIRECTION: "enabled"}}})
    await until(lambda: REDIRECTION not in liar.annotations)


async def test_a_pod_without_certificate_does_not_start(world: World) -> None:
    node = await world.node("node1")
    world.control.refusal = "not for you"
    pod = Pod(await asyncio.to_thread(world.network.host, "pod"), world, "pod", node, "web")
    pod.create()
    answer = await node.cni("add", pod)
    assert not answer["ok"]
    assert "not for you" in answer["error"]
    assert pod.annotations == {REDIRECTION: "pending", NOT_CAPTURED_ANNOTATION: answer["error"]}
    world.control.refusal = ""
    assert await node.cni("add", pod) == {"ok": True, "enrolled": True}
    assert pod.annotations == {REDIRECTION: "enabled"}
    assert await node.cni("add", pod) == {"ok": True, "enrolled": True}
    assert await node.cni("del", pod) == {"ok": True}
    assert await node.cni("del", pod) == {"ok": True}


async def test_a_pod_comes_again_with_the_identity_of_one_that_left(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    assert await client.node.cni("del", client) == {"ok": True}
    world.api.delete("pods", "default", "client")
    again = await world.pod("again", client.node, "client")
    await eventually(again, server, f"{again.four} 2")


async def test_the_mesh_goes_on_without_a_control_plane(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    await world.control.stop()
    for node in world.nodes.values():
        assert node.agent is not None
        current = node.agent.supervisor.status.current
        assert current is not None
        await node.stop()
        os.kill(current.pid, signal.SIGKILL)
        await node.start()
    await eventually(client, server, f"{client.four} 2")
    await eventually(client, server, f"{client.six} 2", v6=True)
    await world.control.start()
    for node in world.nodes.values():
        await until(lambda node=node: node.agent.subscription.stream.connected, seconds=60)


@pytest.mark.feature("N58")
async def test_a_pod_that_lies_about_its_namespace_is_refused(world: World) -> None:
    node = await world.node("node1")
    real = await world.pod("real", node)
    liar = Pod(await asyncio.to_thread(world.network.host, "liar"), world, "liar", node, "web")
    liar.create()
    liar.netns = real.netns
    assert "is not the namespace of pod" in (await node.cni("add", liar))["error"]
    world.api.delete("pods", "default", "liar")
    assert "does not exist" in (await node.cni("add", liar))["error"]


@pytest.mark.feature("N58")
async def test_a_sandbox_that_ends_again_does_not_end_its_successor(world: World) -> None:
    """A kubelet takes an old sandbox down more than once, also when the pod has a new one."""
    client, server = await pair(world)
    old = client.sandbox_fields
    client.netns = (await asyncio.to_thread(world.network.host, "client-again")).netns
    client.four, client.six = await asyncio.to_thread(addresses_of, client.netns)
    assert await client.node.cni("add", client) == {"ok": True, "enrolled": True}
    client.began()
    for netns in (old["netns"], ""):
        message = {**old, "netns": netns}
        assert await client.node.tell({"command": "del", **message}) == {"ok": True}
    assert client.node.agent.enroller.sandboxes[client.uid].netns == str(client.netns)
    await eventually(client, server, f"{client.four} 2")
    assert await client.node.cni("del", client) == {"ok": True}
    assert client.uid not in client.node.agent.enroller.sandboxes


async def test_a_pod_of_a_kubelet_joins_unannounced_and_leaves_nothing_on_the_host(world: World) -> None:
    """The host's /proc is made by hand: a process of the pod, and the host's network namespace."""
    host = await asyncio.to_thread(world.network.host, "host")
    node = world.nodes["node1"] = Node(world, "node1")
    node.host_proc = world.directory / "proc"
    make_process(node.host_proc, 1, "0::/init.scope", host.netns)
    await node.start()
    pod = Pod(await asyncio.to_thread(world.network.host, "late"), world, "late", node, "late")
    pod.uid = "0b7e0a3c-6a0b-4d5e-9d8f-7f1a2b3c4d5e"
    pod.create()
    spec = world.api.objects["pods"]["default", "late"]["spec"]
    spec["containers"] = [{"livenessProbe": {"tcpSocket": {"port": 8080}}}]
    cgroup = f"0::/kubepods.slice/kubepods-pod{pod.uid.replace('-', '_')}.slice/cri-containerd-1.scope\n"
    make_process(node.host_proc, 77, cgroup, pod.netns)
    pod.began()
    await until(lambda: pod.annotations.get(REDIRECTION) == "enabled")
    assert f"{pod.four} . 8080" in await nft.listing(str(host.netns), probes.TABLE)
    former = pod.netns
    pod.netns = (await asyncio.to_thread(world.network.host, "late-again")).netns
    pod.four, pod.six = await asyncio.to_thread(addresses_of, pod.netns)
    shutil.rmtree(node.host_proc / "77")
    make_process(node.host_proc, 78, cgroup, pod.netns)
    await asyncio.create_subprocess_exec("ip", "netns", "del", former.name)
    await until(lambda: not former.exists())
    pod.began()
    async with asyncio.timeout(60):
        while not await capture.is_redirected(str(pod.netns), Capture()):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.05)
    world.api.delete("pods", "default", "late")
    async with asyncio.timeout(60):
        while await nft.listing(str(host.netns), probes.TABLE):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.05)


def make_process(proc: Path, pid: int, cgroup: str, netns: Path) -> None:
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(cgroup)
    (proc / str(pid) / "ns/net").symlink_to(netns)


def addresses_of(netns: Path) -> tuple[Address, Address]:
    four, six = sorted(identity.addresses(str(netns)), key=lambda address: address.version)
    return four, six


async def test_dns_of_a_pod_is_answered_and_counted(world: World) -> None:
    client, _ = await pair(world)
    await world.control.put(
        Service(
            "web",
            "default",
            "web.default.svc.cluster.local",
            (VirtualAddress("", ipaddress.ip_address("10.96.0.9")),),
        )
    )
    node = world.nodes["node1"]
    assert node.agent is not None
    await until(lambda: bool(node.agent.state.services_by_hostname("web.default.svc.cluster.local")))
    reply = await asyncio.to_thread(client_asks, client, "web.default.svc.cluster.local")
    assert ipaddress.ip_address("10.96.0.9").packed in reply
    _, body = await node.http("/metrics", 1)
    assert b'istio_dns_requests_total{request_query_type="A",request_protocol="udp"' in body


def client_asks(client: Pod, name: str) -> bytes:
    """Asks a nameserver that does not exist: only the capture can answer."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(60)
            asker.sendto(question, ("10.77.255.253", 53))
            return asker.recv(512)

    return in_namespace(client.netns, ask)


def denied(agent: NodeAgent) -> list[Flow]:
    """Of new connections."""
    return [flow for flow in agent.flows.newest() if flow.decision == "deny" and not flow.cut]


async def test_what_the_agent_shows(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    await world.control.put(deny("client"))
    await eventually(client, server, REFUSED)
    one, two = world.nodes["node1"], world.nodes["node2"]
    assert one.agent is not None and two.agent is not None
    async with asyncio.timeout(60):
        # The first refusal may have been an open connection that was cut, and a client's node that hears too late from
        # its tunnel why the connection failed does not tell.
        while not (denied(one.agent) and denied(two.agent)):
            assert await client.says(server) == REFUSED
    await until(lambda: any(flow.sent for flow in two.agent.flows.newest()))
    good = next(flow for flow in two.agent.flows.newest() if flow.sent)
    assert good.reporter is Reporter.DESTINATION
    assert good.source.identity == "spiffe://cluster.local/ns/default/sa/client"
    assert good.destination.identity == "spiffe://cluster.local/ns/default/sa/server"
    assert good.mutual_tls
    assert (good.received, good.sent) == (2, len(f"{client.four} 2"))
    bad = denied(two.agent)[0]
    assert bad.policy == "default/deny[0]"
    assert any(line.endswith('error="denied by policy default/deny[0]"') for line in two.lines)
    in_namespace(client.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).sendto(
        b"12345678", (str(server.four), 9999)
    )
    await until(lambda: counters.read(str(server.netns), ruleset.TABLE)["udp_received"].packets)
    (shown,) = json.loads((await one.http("/status"))[1])["pods"]
    assert shown["udp"] == {"sent": {"packets": 1, "bytes": 36}, "received": {"packets": 0, "bytes": 0}}
    status, body = await two.http("/metrics", 1)
    assert status == 200
    text = body.decode()
    udp = 'ambit_udp_packets_total{direction="received",pod_namespace="default",pod_name="server"} 1'
    assert udp in text.splitlines()
    assert {
        "workload_manager_active_proxy_count 1",
        "workload_manager_pending_proxy_count 0",
        "workload_manager_proxies_started_total 1",
        "workload_manager_proxies_stopped_total 0",
    } <= set(text.splitlines())
    assert any(line.startswith("istio_xds_message_total{url=") for line in text.splitlines())
    opened = [line for line in text.splitlines() if line.startswith("istio_tcp_connections_opened_total{")]
    assert any(
        'reporter="destination"' in line
        and 'source_principal="spiffe://cluster.local/ns/default/sa/client"' in line
        and 'connection_security_policy="mutual_tls"' in line
        for line in opened
    )
    assert any(
        'response_flags="DENY"' in line
        for line in text.splitlines()
        if line.startswith("istio_tcp_connections_failed_total{")
    )
    assert (await one.http("/healthz/ready", 2)) == (200, b"ready\n")
    status, body = await one.http("/config_dump")
    dump = json.loads(body)
    assert {each["name"] for each in dump["workloads"]} == {"client", "server"}
    assert dump["policies"][0]["rules"] == [
        [[{"principals": [{"Exact": "cluster.local/ns/default/sa/client"}]}]]
    ]
    assert dump["certificates"][0]["state"] == "Available"
    assert dump["workloadState"][client.uid]["info"]["name"] == "client"
    status, body = await one.http("/flows?limit=1")
    assert len([json.loads(line) for line in body.splitlines()]) == 1
    status, body = await one.http("/certs")
    assert json.loads(body)[0]["state"] == "valid"
    status, body = await one.http("/status")
    assert json.loads(body)["envoy"]["state"] == "serving"
    status, body = await one.http("/nothing")
    assert status == 404


@pytest.mark.feature("F14")
async def test_every_connection_is_counted_once_on_both_sides(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "_JOIN", 5.0)  # what tells why it failed comes later on a busy machine
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    nodes = world.nodes["node1"], world.nodes["node2"]

    def counted(counter: int) -> list[int]:
        return [sum(each[counter] for each in node.agent.flows.counters._series.values()) for node in nodes]

    await until(lambda: counted(flow_metrics.OPENED)[0] == counted(flow_metrics.OPENED)[1] > 0)
    before = counted(flow_metrics.OPENED)
    for _ in range(30):
        assert await client.says(server) == f"{client.four} 2"
    await until(lambda: counted(flow_metrics.OPENED) == [each + 30 for each in before])
    await until(lambda: counted(flow_metrics.CLOSED) == counted(flow_metrics.OPENED))
    before, asked = counted(flow_metrics.OPENED), 1
    assert sum(counted(flow_metrics.FAILED)) == 0
    await world.control.put(deny("client"))
    while await client.says(server) != REFUSED:
        asked += 1
    # One that the policy cut was opened.
    await until(
        lambda: (
            [
                sum(each)
                for each in zip(counted(flow_metrics.OPENED), counted(flow_metrics.FAILED), strict=True)
            ]
            == [each + asked for each in before]
        )
    )
    opened, failed = counted(flow_metrics.OPENED), counted(flow_metrics.FAILED)
    for _ in range(10):
        assert await client.says(server) == REFUSED
    await until(lambda: counted(flow_metrics.FAILED) == [each + 10 for each in failed])
    assert counted(flow_metrics.OPENED) == opened
