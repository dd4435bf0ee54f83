"""Our node agent under a control plane that is not ours: the workload API and the CA as an istiod serves them."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

from ambit.agent.authority import Authority
from ambit.agent.channel import ControlPlane
from ambit.agent.csr import checked, new_key, signing_request
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.node.state.mesh import MeshState, Stored
from ambit.node.upstream.subscription import Subscription
from ambit.xds.frames import Node
from ambit.xds.protos import authorization_pb2, workload_pb2
from tests.node.world import until
from tests.wire.istiod import ADDRESS, AUTHORIZATION, NAME, Istiod

WEB = Identity("cluster.local", "shop", "web")
WEB_UID = "c1//Pod/shop/web-0"


def pod(name: str, address: str, **fields: object) -> workload_pb2.Address:
    return workload_pb2.Address(
        workload=workload_pb2.Workload(
            uid=f"c1//Pod/shop/{name}",
            name=name,
            namespace="shop",
            addresses=[ipaddress.ip_address(address).packed],
            tunnel_protocol=workload_pb2.HBONE,
            service_account="web",
            **fields,
        )
    )


class Running:
    def __init__(self, directory: Path, istiod: Istiod) -> None:
        token = directory / "istio-token"
        token.write_text("a.b.c\n")
        self.control = ControlPlane(
            f"127.0.0.1:{istiod.port}", istiod.root_file, token, "c1", server_name=NAME
        )
        self.state = MeshState(directory / "mesh.sqlite")
        self.subscription = Subscription(
            self.control, Node("ztunnel~10.0.0.1", metadata={"NODE_NAME": "n1"}), self.state, self.applied
        )

    async def applied(self, _: Stored) -> None:
        return None

    def address(self, name: str) -> str | None:
        found = self.state.workload(f"c1//Pod/shop/{name}")
        return str(found.addresses[0]) if found is not None else None


@pytest.fixture
async def istiod(tmp_path: Path) -> AsyncIterator[Istiod]:
    server = Istiod(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def running(tmp_path: Path, istiod: Istiod) -> AsyncIterator[Running]:
    made = Running(tmp_path, istiod)
    task = asyncio.ensure_future(made.subscription.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


async def test_a_mesh_without_policies_is_complete(istiod: Istiod, running: Running) -> None:
    await until(running.subscription.complete.is_set)
    assert istiod.metadata["authorization"] == "Bearer a.b.c"
    assert istiod.metadata["clusterid"] == "c1"
    first = istiod.requests[0]
    assert first.node.metadata["NODE_NAME"] == "n1"
    assert {each.type_url for each in istiod.requests[:2]} == {ADDRESS, AUTHORIZATION}
    assert all(not each.resource_names_subscribe for each in istiod.requests), "everything is asked for"


async def test_content_counts_and_not_its_version(istiod: Istiod, running: Running) -> None:
    """Versions are empty; what was removed while no stream was open is gone after the next begins."""
    istiod.resources[ADDRESS] = {
        WEB_UID: pod("web-0", "10.0.0.1"),
        "c1//Pod/shop/old": pod("old", "10.0.0.2"),
    }
    await istiod.push(ADDRESS, istiod.resources[ADDRESS])
    await until(lambda: running.address("web-0") == "10.0.0.1" and running.address("old") is not None)
    await istiod.push(ADDRESS, {WEB_UID: pod("web-0", "10.0.0.9")})
    await until(lambda: running.address("web-0") == "10.0.0.9")
    del istiod.resources[ADDRESS]["c1//Pod/shop/old"]
    streams = istiod.streams
    istiod.leave()
    await until(lambda: running.address("old") is None)
    assert istiod.streams > streams
    assert running.address("web-0") == "10.0.0.9"


async def test_a_resource_of_a_kind_that_is_not_known_costs_only_itself(
    istiod: Istiod, running: Running
) -> None:
    """Istio's older tunnels: refused by name, with a text and no code, while the others are taken."""
    sidecar = pod("sidecar", "10.0.0.3")
    sidecar.workload.tunnel_protocol = workload_pb2.LEGACY_ISTIO_MTLS
    await until(running.subscription.complete.is_set)
    await istiod.push(ADDRESS, {WEB_UID: pod("web-0", "10.0.0.1"), "c1//Pod/shop/sidecar": sidecar})
    await until(lambda: bool(istiod.rejections(ADDRESS)))
    (answer,) = istiod.rejections(ADDRESS)
    assert "c1//Pod/shop/sidecar" in answer.error_detail.message
    assert running.address("web-0") == "10.0.0.1"
    assert running.address("sidecar") is None


async def test_strict_mutual_tls_travels_as_a_policy(istiod: Istiod, running: Running) -> None:
    """`istio_converted_static_strict` of an istiod: whoever has no identity is denied."""
    strict = authorization_pb2.Authorization(
        name="istio_converted_static_strict",
        namespace="istio-system",
        scope=authorization_pb2.WORKLOAD_SELECTOR,
        action=authorization_pb2.DENY,
    )
    match = strict.rules.add().clauses.add().matches.add()
    match.not_principals.add().presence.SetInParent()
    name = "istio-system/istio_converted_static_strict"
    web = pod("web-0", "10.0.0.1", authorization_policies=[name])
    await until(running.subscription.complete.is_set)
    await istiod.push(ADDRESS, {WEB_UID: web})
    await until(lambda: running.address("web-0") is not None)
    workload = running.state.workload(WEB_UID)
    assert workload is not None
    assert running.state.policies_for(workload) == ((), (name,)), "not yet there: closed"
    await istiod.push(AUTHORIZATION, {name: strict})
    await until(lambda: running.state.authorization(name) is not None)
    (policy,), unknown = running.state.policies_for(workload)
    assert (policy.key, unknown) == (name, ())


async def test_each_root_in_an_element_of_its_own_is_trusted(istiod: Istiod, running: Running) -> None:
    """The chain is leaf and intermediate; both roots count."""
    authority = Authority(running.control)
    try:
        key = new_key()
        certificate = checked(WEB, key, await authority.sign(WEB, signing_request(WEB, key)))
    finally:
        await authority.close()
    (request,) = istiod.signing
    assert request.metadata["ImpersonatedIdentity"] == WEB.uri
    assert request.validity_duration == 86_400
    assert len(x509.load_pem_x509_certificates(certificate.chain)) == 2
    roots = {each.serial_number for each in x509.load_pem_x509_certificates(certificate.roots)}
    expected = (istiod.root.certificate, istiod.other_root.certificate)
    assert roots == {x509.load_pem_x509_certificate(each.encode()).serial_number for each in expected}


async def test_a_server_of_another_name_is_not_believed(istiod: Istiod, running: Running) -> None:
    """The right root, the wrong name."""
    control = ControlPlane(running.control.address, istiod.root_file, running.control.token)
    authority = Authority(control)
    try:
        with pytest.raises(AmbitError):
            await authority.sign(WEB, signing_request(WEB, new_key()))
    finally:
        await authority.close()
    assert istiod.signing == []
