"""Control plane and node agents get by with the charts' permissions, and use every one of them."""

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from ambit.ca.authority import Authority
from ambit.control.gateways import leaving
from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.local.apiserver.access.rbac import Action, Authorizer, Decision
from ambit.local.apiserver.access.tokens import User
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.node.cni.installer import is_deleted
from ambit.node.enrol.enroller import Enroller
from ambit.node.enrol.reconciler import Reconciler
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.introduction import locality, service_ranges
from ambit.node.upstream.trust import TrustFollower
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.charts.rendered import golden_objects
from tests.control.test_process import SETTINGS, WEB, agent_token, ensure, eventually, make_pod, running
from tests.control.test_trust import files, plug_in
from tests.control.world import Ztunnel, signing_request
from tests.node.world import until
from tests.tokens import Issuer

CONTROL = "system:serviceaccount:ambit-system:ambit-control"
AGENT = "system:serviceaccount:ambit-system:ztunnel"
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

    def asked_no_more_and_no_less_than(self, role: str) -> None:
        """The charts' roles of that name."""
        assert self.refused == set()
        wanted = set(granted(role))
        # Servers without streaming lists are asked to list before they are watched.
        listed = {(group, resource, "list") for group, resource, verb in self.used if verb == "watch"}
        assert self.used <= wanted and wanted - self.used <= listed


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
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(request.param)
    monkeypatch.setattr(Authorizer, "decide", recorder.wrap(Authorizer.decide))
    return recorder


class Impersonating(Client):
    """Speaks as an account over the socket that trusts everybody."""

    account = CONTROL

    async def stream(self, method, path, query=None, body=b"", headers=None, **others):  # type: ignore[no-untyped-def]
        as_account = {**(headers or {}), "Impersonate-User": self.account}
        return await super().stream(method, path, query, body, as_account, **others)


class Agent(Impersonating):
    account = AGENT


@pytest.mark.parametrize("recorder", [CONTROL], indirect=True)
async def test_what_the_control_plane_is_granted_is_what_it_uses(
    api: Path, admin: Client, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_pod(admin, "shop", "web", "web-0", annotations={"ambient.istio.io/redirection": "enabled"})
    token = await agent_token(admin)
    for replica in ("one", "two"):
        await make_pod(admin, "ambit-system", "ambit-control", replica)
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

    async def has_addresses() -> bool:
        found = await admin.get(kinds.SERVICE_ENTRIES, "one", "shop")
        return bool((found.get("status") or {}).get("addresses"))

    async def has_said(kind: kinds.Resource, name: str) -> bool:
        status = (await admin.get(kind, name, "shop")).get("status") or {}
        return "ambit" in str(status) or "WaypointBound" in str(status) or bool(status.get("conditions"))

    async def is_there(kind: kinds.Resource) -> bool:
        return any(each["metadata"]["name"] == "waypoint" for each in await admin.list(kind, "shop"))

    async def has_deployment() -> bool:
        return await is_there(kinds.DEPLOYMENTS)

    async def autoscaled() -> bool:
        several = [
            await admin.list(kind, "shop")
            for kind in (kinds.HORIZONTAL_POD_AUTOSCALERS, kinds.POD_DISRUPTION_BUDGETS)
        ]
        return all(several)

    async def has_report() -> bool:
        found = await admin.list(
            kinds.CONFIG_MAPS, "ambit-system", field_selector="metadata.name=ambit-acknowledgements"
        )
        return any(each.get("data") for each in found)

    async with (
        Impersonating.over_unix(api) as client,
        running(client, reader=admin) as plane,
        running(client, msgspec.structs.replace(SETTINGS, instance="two"), reader=admin) as other,
        Ztunnel(plane, token).connected() as node,
        Ztunnel(other, token).connected(),
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
        outside = {"hosts": ["outside.example"], "ports": [{"number": 80, "name": "http", "protocol": "TCP"}]}
        await admin.create(
            kinds.SERVICE_ENTRIES,
            {"metadata": {"name": "one", "namespace": "shop"}, "spec": outside | {"resolution": "DNS"}},
        )
        await eventually(has_addresses)
        await eventually(has_report)
        for kind, value in waypoint_and_bound():
            await admin.create(kind, {**value, "metadata": {"namespace": "shop", **value["metadata"]}})
            if kind != kinds.CONFIG_MAPS:
                await eventually(lambda kind=kind, value=value: has_said(kind, value["metadata"]["name"]))  # type: ignore[misc]
        await eventually(lambda: has_said(kinds.GATEWAY_CLASSES, "ambit-waypoint"))
        await admin.delete(kinds.DEPLOYMENTS, "waypoint", "shop")
        await eventually(has_deployment)
        await eventually(autoscaled)
        no_more = {"data": {"horizontalPodAutoscaler": None, "podDisruptionBudget": None}}
        await admin.patch(kinds.CONFIG_MAPS, "wanted", no_more, "shop")
        await eventually(autoscaled, lambda found: not found)
        monkeypatch.setattr(leaving, "LEFT_AFTER", 0.0)
        inline = {"gatewayClassName": "ambit-inline", "infrastructure": None}
        await admin.patch(kinds.GATEWAYS, "waypoint", {"spec": inline}, "shop")
        await eventually(has_deployment, lambda found: not found)
        await eventually(lambda: is_there(kinds.SERVICE_ACCOUNTS), lambda found: not found)
        # What the watch does not know is looked up: pods of an identity, and the caller's own.
        with pytest.raises(grpc.aio.AioRpcError):
            await plane.certificate(signing_request("spiffe://cluster.local/ns/shop/sa/nobody"), token)
        await admin.delete(kinds.PODS, "agent", "ambit-system", grace_period=0)
        await eventually(lambda: refuses(plane, token))
    recorder.asked_no_more_and_no_less_than("ambit-control")


@pytest.mark.parametrize("recorder", [AGENT], indirect=True)
async def test_what_a_node_agent_is_granted_is_what_it_uses(
    api: Path, admin: Client, recorder: Recorder, tmp_path: Path
) -> None:
    said = {REDIRECTION_ANNOTATION: REDIRECTION_ENABLED}
    await make_pod(admin, "istio-system", "web", "web-0", annotations=said)
    await admin.create(kinds.NODES, {"metadata": {"name": "node1"}})
    async with Agent.over_unix(api) as client:
        parts: Any = None
        enroller = Enroller(client, parts, parts, parts, parts, parts, parts, asyncio.Event(), 1.0)
        reconciler = Reconciler(client, "node1", enroller, sandboxes=tmp_path, namespaces=tmp_path)
        made = await admin.get(kinds.PODS, "web-0", "istio-system")
        sandbox = Sandbox("istio-system", "web-0", made["metadata"]["uid"], "s", "/n", ())
        # Before it watches, it looks up what the container runtime tells of: this pod is none of the mesh's.
        assert await reconciler.add(sandbox) is False
        trust = TrustFollower(client, ("ambit-system", ""), parts, parts, parts, parts)
        watching = asyncio.gather(reconciler.run(), trust.run())
        await until(lambda: trust._informer.is_synced)
        # The annotation that somebody else wrote is taken back.

        async def annotations() -> Any:
            return (await admin.get(kinds.PODS, "web-0", "istio-system"))["metadata"].get("annotations", {})

        await eventually(annotations, lambda found: not found)
        await locality(client, "node1")
        assert await service_ranges(client, ["services"]) == ()
        assert await is_deleted(client, "ambit-system", "ambit-node", lambda: False)
        watching.cancel()
    recorder.asked_no_more_and_no_less_than("ambit-node")


def waypoint_and_bound() -> Iterator[tuple[kinds.Resource, dict[str, Any]]]:
    """A waypoint, what is bound to it, routes, rules about tokens, and what is told of requests."""
    patches = {
        "deployment": "spec: {replicas: 2}",
        "horizontalPodAutoscaler": "spec: {maxReplicas: 3}",
        "podDisruptionBudget": "spec: {minAvailable: 1}",
    }
    yield kinds.CONFIG_MAPS, {"metadata": {"name": "wanted"}, "data": patches}
    yield (
        kinds.GATEWAYS,
        {
            "metadata": {"name": "waypoint"},
            "spec": {
                "gatewayClassName": "ambit-waypoint",
                "infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "wanted"}},
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        },
    )
    taken = {"gatewayClassName": "ambit", "allowedListeners": {"namespaces": {"from": "Same"}}}
    http = {"name": "http", "port": 80, "protocol": "HTTP"}
    yield kinds.GATEWAYS, {"metadata": {"name": "front"}, "spec": {**taken, "listeners": [http]}}
    more = {"parentRef": {"name": "front"}, "listeners": [{**http, "name": "more", "port": 81}]}
    yield kinds.LISTENER_SETS, {"metadata": {"name": "bound"}, "spec": more}
    labels = {"istio.io/use-waypoint": "waypoint"}
    ports = [{"name": "http", "port": 80}]
    yield kinds.SERVICES, {"metadata": {"name": "bound", "labels": labels}, "spec": {"ports": ports}}
    outside = [{"name": "http", "number": 80, "protocol": "HTTP"}]
    entry = {"hosts": ["bound.example"], "ports": outside, "addresses": ["240.1.1.1"], "resolution": "NONE"}
    yield kinds.SERVICE_ENTRIES, {"metadata": {"name": "bound", "labels": labels}, "spec": entry}
    yield (
        kinds.WORKLOAD_ENTRIES,
        {"metadata": {"name": "bound", "labels": labels}, "spec": {"address": "10.9.9.9"}},
    )
    parents = [{"group": "", "kind": "Service", "name": "bound"}]
    for kind in (kinds.HTTP_ROUTES, kinds.GRPC_ROUTES):
        yield kind, {"metadata": {"name": "bound"}, "spec": {"parentRefs": parents, "rules": [{}]}}
    rules = [{"backendRefs": [{"name": "bound", "port": 80}]}]
    for kind in (kinds.TLS_ROUTES, kinds.TCP_ROUTES, kinds.UDP_ROUTES):
        names = {"hostnames": ["bound.example"]} if kind is kinds.TLS_ROUTES else {}
        yield kind, {"metadata": {"name": "bound"}, "spec": {"parentRefs": parents, "rules": rules, **names}}
    issuers = [{"issuer": "https://issuer.example", "jwks": Issuer().jwks}]
    tokens = {"targetRefs": [{"kind": "Service", "group": "", "name": "bound"}], "jwtRules": issuers}
    yield kinds.REQUEST_AUTHENTICATIONS, {"metadata": {"name": "bound"}, "spec": tokens}
    target = {"group": "", "kind": "Service", "name": "bound"}
    roots = [{"group": "", "kind": "ConfigMap", "name": "roots"}]
    validation = {"hostname": "bound.example", "caCertificateRefs": roots}
    wanted = {"targetRefs": [target], "validation": validation}
    yield kinds.BACKEND_TLS_POLICIES, {"metadata": {"name": "bound"}, "spec": wanted}
    bounded = {"targetRefs": [target], "retryConstraint": {"budget": {"percent": 20}}}
    yield kinds.BACKEND_TRAFFIC_POLICIES, {"metadata": {"name": "bound"}, "spec": bounded}
    printed = {"targetRefs": [target], "accessLogging": [{"providers": [{"name": "envoy"}]}]}
    yield kinds.TELEMETRIES, {"metadata": {"name": "bound"}, "spec": printed}


async def refuses(plane: Any, token: str) -> bool:
    try:
        await plane.certificate(signing_request(WEB), token)
    except grpc.aio.AioRpcError:
        return True
    return False
