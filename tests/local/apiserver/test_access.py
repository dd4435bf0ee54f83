"""Who may do what: tokens, reviews, RBAC, over TLS."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from ambit.local.apiserver.server import ApiServer
from tests.local.apiserver.conftest import Client

SA = "/api/v1/namespaces/default/serviceaccounts"
POD = {
    "metadata": {"name": "p"},
    "spec": {"serviceAccountName": "app", "containers": [{"name": "c", "image": "i"}]},
}
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


async def issue(client: Client, **spec: Any) -> str:
    made = await client.make(f"{SA}/app/token", {"spec": spec})
    return str(made["status"]["token"])


async def review(client: Client, token: str, *audiences: str) -> Any:
    body = await client.make(REVIEWS, {"spec": {"token": token, "audiences": list(audiences)}})
    return body["status"]


@pytest.fixture
async def app(client: Client) -> Client:
    await client.make(SA, {"metadata": {"name": "app"}})
    await client.make("/api/v1/nodes", {"metadata": {"name": "node1"}})
    await client.make("/api/v1/namespaces/default/pods", POD)
    binding = {"target": {"kind": "Node", "name": "node1"}}
    await client.make("/api/v1/namespaces/default/pods/p/binding", binding)
    return client


async def test_a_bound_token_names_pod_and_node_and_dies_with_the_pod(app: Client) -> None:
    pod = await app.get("/api/v1/namespaces/default/pods/p")
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]}
    token = await issue(app, audiences=["istio-ca"], boundObjectRef=reference, expirationSeconds=600)
    status = await review(app, token, "istio-ca")
    assert status["authenticated"] and status["audiences"] == ["istio-ca"]
    assert status["user"]["username"] == "system:serviceaccount:default:app"
    extra = status["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == ["p"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]
    assert extra["authentication.kubernetes.io/node-name"] == ["node1"]
    assert not (await review(app, token))["authenticated"]
    await app.call("DELETE", "/api/v1/namespaces/default/pods/p", {"gracePeriodSeconds": 0})
    status = await review(app, token, "istio-ca")
    assert not status["authenticated"] and "does not exist any more" in status["error"]


async def test_tokens_are_verifiable_with_the_published_keys(app: Client) -> None:
    token = await issue(app, audiences=["x"])
    keys = jwt.PyJWKSet.from_dict(await app.get("/openid/v1/jwks"))
    configuration = await app.get("/.well-known/openid-configuration")
    claims = jwt.decode(
        token, keys.keys[0], algorithms=["ES256"], audience="x", issuer=configuration["issuer"]
    )
    assert claims["sub"] == "system:serviceaccount:default:app"
    header, body, signature = token.split(".")
    forged = ".".join((header, body, signature[:-4] + "AAAA"))
    assert not (await review(app, forged, "x"))["authenticated"]


async def test_short_tokens_and_foreign_pods_are_refused(app: Client) -> None:
    status, _ = await app.call("POST", f"{SA}/app/token", {"spec": {"expirationSeconds": 5}})
    assert status == 422
    await app.make(SA, {"metadata": {"name": "other"}})
    body = {"spec": {"boundObjectRef": {"kind": "Pod", "name": "p"}}}
    status, _ = await app.call("POST", f"{SA}/other/token", body)
    assert status == 403


@pytest.fixture
async def outside(server: ApiServer, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    await server.start([listener], None)
    context = ssl.create_default_context(cafile=server.credentials.authority)
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


async def test_nobody_is_let_in_without_credentials(outside: aiohttp.ClientSession) -> None:
    for path in ("/api/v1/pods", "/apis", "/openapi/v3", "/api/v1/namespaces/default/pods/p/log"):
        async with outside.get(path) as response:
            assert response.status == 401, path
    async with outside.get("/readyz") as response:
        assert (response.status, await response.text()) == (200, "ok")
    async with outside.get("/api/v1/pods", headers={"Authorization": "Bearer nonsense"}) as response:
        assert response.status == 401


async def test_roles_decide_for_service_accounts(app: Client, outside: aiohttp.ClientSession) -> None:
    headers = {"Authorization": f"Bearer {await issue(app)}"}
    pods = "/api/v1/namespaces/default/pods"

    async def status(path: str, method: str = "GET") -> int:
        async with outside.request(method, path, headers=headers) as response:
            return response.status

    assert await status(pods) == 403
    assert await status("/apis") == 200
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"], "resourceNames": []}]
    await app.make(f"{RBAC}/namespaces/default/roles", {"metadata": {"name": "reader"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "app", "namespace": "default"}
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"kind": "Role", "name": "reader"},
        "subjects": [subject],
    }
    await app.make(f"{RBAC}/namespaces/default/rolebindings", binding)
    assert await status(pods) == 200
    assert await status(f"{pods}/p") == 200
    assert await status(f"{pods}/p/log") == 403
    assert await status(f"{pods}/p", "DELETE") == 403
    assert await status("/api/v1/namespaces/kube-system/pods") == 403
    question = {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}
    body = {"spec": {**question, "user": "system:serviceaccount:default:app"}}
    answer = await app.make("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    assert answer["status"]["allowed"] is True
    await app.call("DELETE", f"{RBAC}/namespaces/default/rolebindings/reader")
    assert await status(pods) == 403


async def test_a_rule_for_one_name_allows_the_collection_narrowed_to_it(app: Client) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"], "resourceNames": ["one"]}
    ]
    await app.make(f"{RBAC}/clusterroles", {"metadata": {"name": "one"}, "rules": rules})
    binding = {
        "metadata": {"name": "one"},
        "roleRef": {"kind": "ClusterRole", "name": "one"},
        "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}],
    }
    await app.make(f"{RBAC}/clusterrolebindings", binding)
    account = {"Impersonate-User": "system:serviceaccount:default:app"}

    async def status(fields: str, **more: str) -> int:
        query = {"fieldSelector": fields, **more}
        async with app.session.get("/api/v1/configmaps", params=query, headers=account) as response:
            return response.status

    assert await status("metadata.name=one") == 200
    assert (
        await status("metadata.namespace=default,metadata.name==one", watch="true", timeoutSeconds="0") == 200
    )
    for fields in ("", "metadata.name=two", "metadata.name!=one", "metadata.namespace=one"):
        assert await status(fields) == 403, fields


async def test_nobody_grants_more_than_they_hold(app: Client, outside: aiohttp.ClientSession) -> None:
    subject = {"kind": "ServiceAccount", "name": "app", "namespace": "default"}
    mine = {
        "metadata": {"name": "mine"},
        "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [subject],
    }
    bindings = f"{RBAC}/namespaces/default/rolebindings"
    await app.make(bindings, mine)
    headers = {"Authorization": f"Bearer {await issue(app)}"}

    async def grant(name: str, role: str) -> int:
        body = {**mine, "metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role}}
        async with outside.post(bindings, json=body, headers=headers) as response:
            return response.status

    assert await grant("more", "cluster-admin") == 403
    assert await grant("same", "view") == 201
    rules = [{"apiGroups": ["apiextensions.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
    role = {"metadata": {"name": "r"}, "rules": rules}
    async with outside.post(f"{RBAC}/namespaces/default/roles", json=role, headers=headers) as response:
        assert response.status == 403
    await app.make(f"{RBAC}/namespaces/default/roles", {"metadata": {"name": "r"}, "rules": []})
    media = {**headers, "Content-Type": "application/merge-patch+json"}
    path = f"{RBAC}/namespaces/default/roles/r"
    async with outside.patch(path, json={"rules": rules}, headers=media) as response:
        assert response.status == 403


async def test_who_applies_what_is_not_there_must_be_allowed_to_create_it(
    app: Client, outside: aiohttp.ClientSession
) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}
    await app.make(f"{RBAC}/namespaces/default/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}],
    }
    await app.make(f"{RBAC}/namespaces/default/rolebindings", binding)
    headers = {
        "Authorization": f"Bearer {await issue(app)}",
        "Content-Type": "application/apply-patch+yaml",
    }
    path = "/api/v1/namespaces/default/configmaps/c?fieldManager=me"
    data = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}'
    async with outside.patch(path, data=data, headers=headers) as answer:
        assert answer.status == 403 and "cannot create resource" in (await answer.json())["message"]
    await app.make("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
    async with outside.patch(path, data=data, headers=headers) as answer:
        assert answer.status == 200


async def test_impersonation_narrows_and_needs_the_right(app: Client, outside: aiohttp.ClientSession) -> None:
    account = "system:serviceaccount:default:app"
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    async with app.session.post(review, json={}, headers={"Impersonate-User": account}) as response:
        info = (await response.json())["status"]["userInfo"]
    assert info["username"] == account and "system:serviceaccounts:default" in info["groups"]
    async with app.session.get("/api/v1/pods", headers={"Impersonate-User": account}) as response:
        assert response.status == 403
    headers = {"Authorization": f"Bearer {await issue(app)}", "Impersonate-User": "somebody"}
    async with outside.get("/apis", headers=headers) as response:
        assert response.status == 403
        assert 'cannot impersonate resource "users"' in (await response.json())["message"]
    async with app.session.get("/apis", headers={"Impersonate-Group": "system:masters"}) as response:
        assert response.status == 400
