"""The whole control plane against our API server."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import msgspec
import pytest
from bench.ports import free_port

from ambit.ca.authority import BadAuthority
from ambit.control.process import ControlPlane, wall_clock
from ambit.control.settings import Settings
from ambit.control.statuses.status import StatusWriter
from ambit.core.errors import EnvironmentProblem
from ambit.ingest.mesh import Change, MeshDelta
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.model.workload import TunnelProtocol
from ambit.objects.istio import decode_authorization_policy
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES, from_resource
from tests.control.test_pieces import ask
from tests.control.world import World, Ztunnel, signing_request

SETTINGS = Settings(tls_address="127.0.0.1", tls_port=0, plain_port=0, debug_port=0, instance="one")
WEB = "spiffe://cluster.local/ns/shop/sa/web"


@pytest.fixture
async def client(tmp_path):
    api = ApiServer(ApiSettings(tmp_path / "pki"), None)
    await api.start([], tmp_path / "api.sock")
    async with Client.over_unix(tmp_path / "api.sock") as client:
        for name in ("ambit-system", "istio-system", "shop"):
            labels = {"istio.io/dataplane-mode": "ambient"} if name == "shop" else {}
            await ensure(client, kinds.NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        yield client
    await api.stop()


async def ensure(client, resource, value):
    try:
        await client.get(resource, value["metadata"]["name"], value["metadata"].get("namespace"))
    except NotFound:
        await client.create(resource, value)


async def make_pod(client, namespace, account, name, node="node1", address="10.244.1.9", annotations=None):
    """A running pod; returns its uid."""
    await ensure(client, kinds.SERVICE_ACCOUNTS, {"metadata": {"name": account, "namespace": namespace}})
    pod = {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "main", "image": "x"}],
        },
    }
    made = await client.create(kinds.PODS, pod)
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    await client.patch(kinds.PODS, name, {"status": status}, namespace, subresource="status")
    return made["metadata"]["uid"]


async def agent_token(client):
    uid = await make_pod(client, "ambit-system", "ztunnel", "agent", address="10.244.1.2")
    answer = await client.token_request("ambit-system", "ztunnel", ("istio-ca",), bound_pod=("agent", uid))
    return answer["token"]


class Running(World):
    """As a world, for the clients in it: a running control plane's port and root."""

    def __init__(self, ports, roots):
        self.ports, self.port = ports, ports.tls
        self.authority = type("Roots", (), {"roots": roots})

    def trusts(self, trust):
        """Clients trust what nodes do."""
        self.authority = type("Roots", (), {"roots": trust.roots})


@asynccontextmanager
async def running(client, settings=SETTINGS, reader=None, wall=wall_clock):
    """`reader` finds the published root, for a client that may not read it."""
    ready = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(ControlPlane(client, settings, on_ready=ready.set_result, wall=wall).run(stop))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    if task.done():
        await task
    published = await (reader or client).get(kinds.CONFIG_MAPS, "istio-ca-root-cert", "ambit-system")
    try:
        yield Running(ready.result(), published["data"]["root-cert.pem"])
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await task


async def eventually(question, wanted=lambda answer: answer):
    async with asyncio.timeout(60):
        while True:
            answer = await question()
            if wanted(answer):
                return answer
            await asyncio.sleep(0.01)


async def test_pods_and_policies_reach_a_node(client):
    enabled = {"ambient.istio.io/redirection": "enabled"}
    await make_pod(client, "shop", "web", "web-0", annotations=enabled)
    token = await agent_token(client)
    async with running(client) as plane, Ztunnel(plane, token).connected() as node:
        first, second = await node.receive(), await node.receive()
        assert (first.type_url, second.type_url) == (AUTHORIZATION_TYPE, ADDRESS_TYPE)
        values = {each.name: from_resource(ADDRESS_TYPE, each) for each in second.resources}
        web = values["Kubernetes//Pod/shop/web-0"]
        assert (web.identity.uri, web.tunnel, web.node) == (WEB, TunnelProtocol.HBONE, "node1")
        policy = {
            "metadata": {"name": "strict", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"}},
        }
        await client.patch(kinds.PODS, "web-0", {"metadata": {"labels": {"app": "web"}}}, "shop")
        await client.create(kinds.PEER_AUTHENTICATIONS, policy)
        named = ()
        while not named:
            update = await node.receive()
            for each in update.resources:
                value = from_resource(update.type_url, each)
                if each.name == web.uid and value.policies:
                    named = value.policies
        assert set(named) <= node.kept[AUTHORIZATION_TYPE].keys()


async def test_certificates_follow_the_pods_of_the_node(client):
    await make_pod(client, "shop", "web", "web-0")
    await make_pod(client, "shop", "db", "db-0", node="node2", address="10.244.2.9")
    token = await agent_token(client)
    async with running(client) as plane:
        assert len(await plane.certificate(signing_request(WEB), token)) == 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.certificate(signing_request("spiffe://cluster.local/ns/shop/sa/db"), token)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        wrong = await client.token_request("ambit-system", "ztunnel", ("other",))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plane.certificate(signing_request(WEB), wrong["token"])
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await client.delete(kinds.PODS, "agent", "ambit-system", grace_period=0)

        async def refused():
            try:
                await plane.certificate(signing_request(WEB), token)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return None

        assert await eventually(refused) in (
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
        )


async def test_the_root_survives_a_restart(client):
    async with running(client) as first:
        root = first.authority.roots
    async with running(client) as second:
        assert second.authority.roots == root
    secret = await client.get(kinds.SECRETS, "istio-ca-secret", "ambit-system")
    assert secret["type"] == "istio.io/ca-root"


async def test_a_damaged_root_stops_a_control_plane_that_knows_no_other(client):
    damaged = {"metadata": {"name": "cacerts"}, "data": {"ca-cert.pem": ""}}
    await client.create(kinds.SECRETS, damaged, "ambit-system")
    with pytest.raises(
        BadAuthority, match=r"ambit-system/cacerts lacks ca-cert\.pem and ca-key\.pem"
    ) as problem:
        async with running(client):
            pass
    assert problem.value.hint == "put them there: docs/certificates.md"


async def test_the_root_is_published_in_every_namespace_and_kept_there(client):
    async def published(namespace):
        try:
            found = await client.get(kinds.CONFIG_MAPS, "istio-ca-root-cert", namespace)
        except NotFound:
            return None
        return (found.get("data") or {}).get("root-cert.pem")

    async with running(client) as plane:
        root = plane.authority.roots
        assert await eventually(lambda: published("shop")) == root
        await client.create(kinds.NAMESPACES, {"metadata": {"name": "later"}})
        assert await eventually(lambda: published("later")) == root
        data = {"data": {"root-cert.pem": "mine"}}
        await client.patch(kinds.CONFIG_MAPS, "istio-ca-root-cert", data, "shop")
        await eventually(lambda: published("shop"), lambda text: text == root)
        await client.delete(kinds.CONFIG_MAPS, "istio-ca-root-cert", "later")
        assert await eventually(lambda: published("later")) == root


async def test_policies_report_acceptance_and_acknowledgement(client):
    token = await agent_token(client)
    good = {
        "metadata": {"name": "good", "namespace": "shop"},
        "spec": {"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]},
    }
    bad = {
        "metadata": {"name": "bad", "namespace": "shop"},
        "spec": {"rules": [{"from": [{"source": {"ipBlocks": ["300.1.1.1"]}}]}]},
    }

    async def conditions(name):
        policy = await client.get(kinds.AUTHORIZATION_POLICIES, name, "shop")
        return {
            each["type"]: (each["status"], each["reason"])
            for each in (policy.get("status") or {}).get("conditions", ())
        }

    async with running(client) as plane, Ztunnel(plane, token).connected() as node:
        await node.receive()
        await node.receive()
        await client.create(kinds.AUTHORIZATION_POLICIES, good)
        await eventually(
            lambda: conditions("good"),
            lambda found: found.get("ambit.io/Acknowledged") == ("False", "Pending"),
        )
        await node.receive()
        found = await eventually(
            lambda: conditions("good"), lambda found: found.get("ambit.io/Acknowledged", ("",))[0] == "True"
        )
        assert found["ZtunnelAccepted"] == ("True", "Accepted")
        await client.create(kinds.AUTHORIZATION_POLICIES, bad)
        found = await eventually(lambda: conditions("bad"))
        assert found["ZtunnelAccepted"][0] == "False"
        node.reject = "shop/bad: cannot do that"
        await node.receive()
        await eventually(
            lambda: conditions("bad"), lambda found: found["ambit.io/Acknowledged"] == ("False", "Rejected")
        )
        later = msgspec.json.decode(msgspec.json.encode(good))
        later["metadata"]["name"] = "later"
        await client.create(kinds.AUTHORIZATION_POLICIES, later)
        node.reject = "shop/later: not beside shop/bad"
        await node.receive()
        found = await eventually(
            lambda: conditions("later"), lambda found: found.get("ZtunnelAccepted") == ("False", "Rejected")
        )
        # What is wrong goes: the node is asked again about what it rejected with it, and says yes.
        node.reject = ""
        await client.delete(kinds.AUTHORIZATION_POLICIES, "bad", "shop")
        await node.receive()
        await node.receive()
        found = await eventually(
            lambda: conditions("later"), lambda found: found["ambit.io/Acknowledged"][0] == "True"
        )
        assert found["ZtunnelAccepted"] == ("True", "Accepted")


async def acknowledged(client, name):
    policy = await client.get(kinds.AUTHORIZATION_POLICIES, name, "shop")
    conditions = (policy.get("status") or {}).get("conditions", ())
    found = [each for each in conditions if each["type"] == "ambit.io/Acknowledged"]
    return (found[0]["status"], found[0]["message"]) if found else ("", "")


async def test_a_node_with_captured_pods_that_is_not_connected_has_not_acknowledged(client):
    enabled = {"ambient.istio.io/redirection": "enabled"}
    await make_pod(client, "shop", "web", "web-0", node="node2", annotations=enabled)
    token = await agent_token(client)
    nobody = {"metadata": {"name": "nobody", "namespace": "shop"}, "spec": {"action": "DENY", "rules": [{}]}}
    await client.create(kinds.AUTHORIZATION_POLICIES, nobody)
    async with running(client) as plane, Ztunnel(plane, token).connected() as node:
        await node.receive()
        await node.receive()
        waiting = ("False", "waiting for node2 (not connected)")
        await eventually(lambda: acknowledged(client, "nobody"), lambda found: found == waiting)
        await client.delete(kinds.PODS, "web-0", "shop", grace_period=0)
        done = ("True", "acknowledged by 1 node")
        await eventually(lambda: acknowledged(client, "nobody"), lambda found: found == done)


async def test_a_newer_generation_is_not_acknowledged_by_the_answers_to_an_older_one(client):
    writer = StatusWriter(client, World().discovery, tuple, lambda: True, wall_clock)
    running_writer = asyncio.create_task(writer.run())
    resource = kinds.AUTHORIZATION_POLICIES
    name = "authorizationpolicies.security.istio.io"

    def compiled(value):
        policy = decode_authorization_policy(msgspec.json.encode(value))
        writer.compiled([Change(name, policy.metadata.key, policy)], MeshDelta())

    async def generations(name):
        policy = await client.get(resource, name, "shop")
        return {each["observedGeneration"] for each in (policy.get("status") or {}).get("conditions", ())}

    older = await client.create(
        resource, {"metadata": {"name": "nobody", "namespace": "shop"}, "spec": {"action": "DENY"}}
    )
    changed = {"spec": {"action": "DENY", "rules": [{}]}}
    newer = await client.patch(resource, "nobody", changed, "shop")
    compiled(older)
    await eventually(lambda: settled(writer))
    assert await generations("nobody") == set()
    compiled(newer)
    await eventually(lambda: generations("nobody"), lambda found: found == {newer["metadata"]["generation"]})
    running_writer.cancel()


async def settled(writer):
    return writer._queue.is_idle


async def test_mutual_tls_of_a_namespace_reports_too_and_a_restart_changes_nothing(client):
    token = await agent_token(client)
    peer = {"metadata": {"name": "default", "namespace": "shop"}, "spec": {"mtls": {"mode": "STRICT"}}}
    await client.create(kinds.PEER_AUTHENTICATIONS, peer)

    async def status():
        policy = await client.get(kinds.PEER_AUTHENTICATIONS, "default", "shop")
        conditions = (policy.get("status") or {}).get("conditions", ())
        return {each["type"]: each["status"] for each in conditions}, policy["metadata"]["resourceVersion"]

    async with running(client) as plane:
        await eventually(status, lambda found: found[0].get("ambit.io/Acknowledged") == "Unknown")
        async with Ztunnel(plane, token).connected() as node:
            await node.receive()
            await node.receive()
            wanted = {"ZtunnelAccepted": "True", "ambit.io/Acknowledged": "True"}
            _, version = await eventually(status, lambda found: found[0] == wanted)
    control = ControlPlane(client, SETTINGS)
    looked = asyncio.Event()
    real = control._status._reconcile

    async def reconcile(origin):
        await real(origin)
        looked.set()

    control._status._reconcile = reconcile
    stop = asyncio.Event()
    task = asyncio.create_task(control.run(stop))
    await asyncio.wait_for(looked.wait(), 60)
    stop.set()
    await task
    assert await status() == (wanted, version)


async def test_debug_pages(client):
    token = await agent_token(client)
    async with running(client) as plane, Ztunnel(plane, token).connected() as node:
        await node.receive()
        await node.receive()

        async def synced():
            _, body = await ask(plane.ports.debug, b"GET /debug/syncz HTTP/1.1\r\n\r\n")
            return msgspec.json.decode(body)

        [status] = await eventually(
            synced, lambda found: found and found[0]["types"][ADDRESS_TYPE]["acked"] > 0
        )
        assert status["node"] == "node1"
        assert (await ask(plane.ports.debug, b"GET /healthz/ready HTTP/1.1\r\n\r\n"))[1] == b"ready\n"
        _, metrics = await ask(plane.ports.debug, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b"ambit_xds_nodes 1\n" in metrics
        assert (await ask(plane.ports.debug, b"GET /debug/findings HTTP/1.1\r\n\r\n"))[0].endswith("200 OK")


async def test_the_pod_network_sees_metrics_and_whether_it_lives_and_nothing_else(client):
    debug, ready = free_port(), free_port()
    other = msgspec.structs.replace(
        SETTINGS, debug_port=debug, metrics_addresses=("127.0.0.2",), readiness_port=ready
    )
    async with running(client, other):
        served = await ask(debug, b"GET /metrics HTTP/1.1\r\n\r\n", "127.0.0.2")
        assert served[0].endswith("200 OK") and b"ambit_xds_nodes 0\n" in served[1]
        for path in (b"/debug/syncz", b"/debug/trust", b"/debug/findings", b"/version"):
            answer = await ask(debug, b"GET %s HTTP/1.1\r\n\r\n" % path, "127.0.0.2")
            assert answer[0].endswith("404 Not Found")
        assert (await ask(debug, b"GET /debug/syncz HTTP/1.1\r\n\r\n"))[0].endswith("200 OK")
        assert (await ask(ready, b"GET /live HTTP/1.1\r\n\r\n"))[1] == b"live\n"


async def test_it_is_alive_before_it_is_ready(client):
    ready = free_port()
    control = ControlPlane(client, msgspec.structs.replace(SETTINGS, readiness_port=ready))
    control._feed.start = asyncio.Event().wait
    stop = asyncio.Event()
    task = asyncio.create_task(control.run(stop))

    async def status(path):
        try:
            return (await ask(ready, b"GET %s HTTP/1.1\r\n\r\n" % path))[0]
        except OSError:
            return ""

    await eventually(lambda: status(b"/live"), lambda found: found.endswith("200 OK"))
    assert "503" in await status(b"/ready")
    stop.set()
    await task


async def test_a_second_replica_serves_and_takes_over(client):
    token = await agent_token(client)
    async with running(client) as first:
        async with running(client, msgspec.structs.replace(SETTINGS, instance="two")) as second:
            assert second.authority.roots == first.authority.roots
            async with Ztunnel(second, token).connected() as node:
                await node.receive()
        lease = await client.get(kinds.LEASES, "ambit-control", "ambit-system")
        assert lease["spec"]["holderIdentity"] == "one"
    lease = await client.get(kinds.LEASES, "ambit-control", "ambit-system")
    assert lease["spec"]["holderIdentity"] == ""


async def test_a_batch_that_cannot_be_compiled_ends_the_process(client):
    ready = asyncio.get_running_loop().create_future()
    plane = ControlPlane(client, SETTINGS, on_ready=ready.set_result)
    task = asyncio.create_task(plane.run(asyncio.Event()))
    await ready

    def fail(changes):
        raise RuntimeError("a bug")

    plane._feed._compiler.apply = fail
    await client.create(kinds.NAMESPACES, {"metadata": {"name": "later"}})
    with pytest.raises(RuntimeError, match="a bug"):
        async with asyncio.timeout(60):
            await task


async def test_two_control_planes_on_one_port_do_not_share_it(client):
    async with running(client) as first:
        settings = msgspec.structs.replace(SETTINGS, tls_port=first.ports.tls)
        with pytest.raises(EnvironmentProblem, match=f"port {first.ports.tls} cannot be bound"):
            async with running(client, settings):
                pass


async def test_nodes_are_served_while_the_api_server_is_away_and_updated_when_it_is_back(tmp_path):
    settings = ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite")
    api = ApiServer(settings, None)
    await api.start([], tmp_path / "api.sock")
    async with Client.over_unix(tmp_path / "api.sock") as client:
        for name in ("ambit-system", "shop"):
            await ensure(client, kinds.NAMESPACES, {"metadata": {"name": name}})
        await make_pod(client, "shop", "web", "web-0")
        token = await agent_token(client)
        async with running(client) as plane:
            node = Ztunnel(plane, token)
            async with node.connected():
                await node.receive()
                await node.receive()
                await api.stop()
            async with node.connected():
                assert {(await node.receive()).type_url, (await node.receive()).type_url} == set(TYPES)
                api = ApiServer(settings, None)
                await api.start([], tmp_path / "api.sock")
                await make_pod(client, "shop", "web", "web-1", address="10.244.1.10")
                update = await node.receive()
                assert [each.name for each in update.resources] == ["Kubernetes//Pod/shop/web-1"]
    await api.stop()


async def test_ready_means_that_everything_was_seen(client):
    """Nodes are let in before, so an open port says nothing: who may not read the mesh must replace nobody."""
    port, seen, stop = free_port(), asyncio.Event(), asyncio.Event()
    control = ControlPlane(client, msgspec.structs.replace(SETTINGS, readiness_port=port))
    start = control._feed.start

    async def late():
        await seen.wait()
        await start()

    async def answer():
        try:
            return (await ask(port, b"GET /ready HTTP/1.1\r\n\r\n"))[1]
        except OSError:
            return b""

    control._feed.start = late
    task = asyncio.create_task(control.run(stop))
    assert (await eventually(answer)).startswith(b"not ready")
    seen.set()
    await eventually(answer, lambda found: found == b"ready\n")
    stop.set()
    await task
