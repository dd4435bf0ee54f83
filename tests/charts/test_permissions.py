"""The control plane gets by with the charts' permissions, and uses every one of them."""

import datetime as dt
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ambit.ca.authority import Authority
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.local.apiserver.rbac import Action, Authorizer, Decision
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.apiserver.tokens import User
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.charts.rendered import golden_objects
from tests.control.test_process import WEB, agent_token, ensure, eventually, make_pod, running
from tests.control.test_trust import files, plug_in
from tests.control.world import Ztunnel, signing_request

ACCOUNT = "system:serviceaccount:ambit-system:ambit-control"
KINDS = {
    each.kind: each
    for each in (kinds.CLUSTER_ROLES, kinds.CLUSTER_ROLE_BINDINGS, kinds.ROLES, kinds.ROLE_BINDINGS)
}


class Recorder:
    """What an account asked for, and what of it was refused."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.used: set[tuple[str, str, str]] = set()
        self.refused: set[Action] = set()

    def wrap(self, decide: Any) -> Any:
        def recording(authorizer: Authorizer, user: User, action: Action) -> Decision:
            decision: Decision = decide(authorizer, user, action)
            if user.name == self.account and action.resource:
                full = f"{action.resource}/{action.subresource}" if action.subresource else action.resource
                self.used.add((action.group, full, action.verb))
                if not decision.allowed:
                    self.refused.add(action)
            return decision

        return recording


def granted(name: str) -> Iterator[tuple[str, str, str]]:
    """Group, resource and verb of each permission in the charts' roles of that name."""
    for value in golden_objects():
        if value["kind"] in {"ClusterRole", "Role"} and value["metadata"]["name"] == name:
            for rule in value["rules"]:
                yield from itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Path]:
    server = ApiServer(ApiSettings(tmp_path / "pki"), None)
    await server.start([], tmp_path / "api.sock")
    yield tmp_path / "api.sock"
    await server.stop()


@pytest.fixture
async def admin(api: Path) -> AsyncIterator[Client]:
    async with Client.over_unix(api) as client:
        for name in ("ambit-system", "istio-system", "shop"):
            labels = {"istio.io/dataplane-mode": "ambient"} if name == "shop" else {}
            await ensure(client, kinds.NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        for value in golden_objects():
            if value["kind"] in KINDS:
                await ensure(client, KINDS[value["kind"]], value)
        yield client


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(ACCOUNT)
    monkeypatch.setattr(Authorizer, "decide", recorder.wrap(Authorizer.decide))
    return recorder


class Impersonating(Client):
    """Speaks as the control plane's account over the socket that trusts everybody."""

    async def stream(self, method, path, query=None, body=b"", headers=None, **others):  # type: ignore[no-untyped-def]
        as_account = {**(headers or {}), "Impersonate-User": ACCOUNT}
        return await super().stream(method, path, query, body, as_account, **others)


async def test_what_is_granted_is_what_is_used(api: Path, admin: Client, recorder: Recorder) -> None:
    await make_pod(admin, "shop", "web", "web-0", annotations={"ambient.istio.io/redirection": "enabled"})
    token = await agent_token(admin)
    policies = {
        kinds.AUTHORIZATION_POLICIES: {"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]},
        kinds.PEER_AUTHENTICATIONS: {"mtls": {"mode": "STRICT"}},
    }

    async def has_status(kind: kinds.Resource) -> bool:
        value = await admin.get(kind, "one", "shop")
        return bool((value.get("status") or {}).get("conditions"))

    async def has_root(namespace: str) -> bool:
        found = await admin.list(
            kinds.CONFIG_MAPS, namespace, field_selector="metadata.name=istio-ca-root-cert"
        )
        return any(each["data"].get("root-cert.pem", "").startswith("-----BEGIN") for each in found)

    async def has_two_roots(namespace: str) -> bool:
        found = await admin.get(kinds.CONFIG_MAPS, "istio-ca-root-cert", namespace)
        return str(found["data"]["root-cert.pem"]).count("BEGIN") == 2

    async with (
        Impersonating.over_unix(api) as client,
        running(client, reader=admin) as plane,
        Ztunnel(plane, token).connected() as node,
    ):
        assert {(await node.receive()).type_url for _ in range(2)} == {ADDRESS_TYPE, AUTHORIZATION_TYPE}
        assert len(await plane.certificate(signing_request(WEB), token)) == 2
        for kind, spec in policies.items():
            await admin.create(kind, {"metadata": {"name": "one", "namespace": "shop"}, "spec": spec})
            await eventually(lambda kind=kind: has_status(kind))  # type: ignore[misc]
        await eventually(lambda: has_root("shop"))
        await plug_in(admin, files(Authority.create("cluster.local", dt.datetime.now(dt.UTC))))
        await eventually(lambda: has_two_roots("shop"))
        await admin.patch(
            kinds.CONFIG_MAPS, "istio-ca-root-cert", {"data": {"root-cert.pem": "spoilt"}}, "shop"
        )
        await eventually(lambda: has_root("shop"))
        # What the watch does not know is looked up: pods of an identity, and the caller's own.
        with pytest.raises(grpc.aio.AioRpcError):
            await plane.certificate(signing_request("spiffe://cluster.local/ns/shop/sa/nobody"), token)
        await admin.delete(kinds.PODS, "agent", "ambit-system", grace_period=0)
        await eventually(lambda: refuses(plane, token))
    assert recorder.refused == set()
    wanted = set(granted("ambit-control"))
    # Servers without streaming lists are asked to list before they are watched.
    listed = {(group, resource, "list") for group, resource, verb in recorder.used if verb == "watch"}
    assert recorder.used <= wanted and wanted - recorder.used <= listed


async def refuses(plane: Any, token: str) -> bool:
    try:
        await plane.certificate(signing_request(WEB), token)
    except grpc.aio.AioRpcError:
        return True
    return False
