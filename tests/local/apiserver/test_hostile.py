"""Bodies that are made to hurt: each is answered with a Status, and the server goes on."""

import base64
import json
from typing import Any

import jwt
import pytest

from ambit.objects.documents import DEPTH
from ambit.objects.wire import MAGIC, WireError, decode_object
from tests.local.apiserver.conftest import Client

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
MAPS = "/api/v1/namespaces/default/configmaps"
YAML, JSON, APPLY = "application/yaml", "application/json", "application/apply-patch+yaml"
NESTED = "[" * 200_000 + "]" * 200_000
SHALLOWER = "[" * 1000 + "]" * 1000
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)
HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"


async def send(
    client: Client, method: str, path: str, text: str, media: str, **query: str
) -> tuple[int, Any, list[str]]:
    """The status, the body, and the warnings."""
    headers = {"Content-Type": media}
    async with client.session.request(
        method, path, data=text.encode(), headers=headers, params=query
    ) as answer:
        return answer.status, json.loads(await answer.read()), answer.headers.getall("Warning", [])


@pytest.mark.parametrize(
    ("text", "media", "said"),
    [
        ("a: " + NESTED, YAML, "line 1: nested deeper than"),
        ('{"a": ' + NESTED + "}", YAML, "line 1: nested deeper than"),
        ('{"a": ' + NESTED + "}", JSON, "depth limit"),
        ('{"a": ' + SHALLOWER + "}", JSON, "nested deeper than"),
        (BOMB, YAML, "aliases come to more than"),
        ("a: &x {b: *x}", YAML, "is inside what it refers to"),
        ("a: 1" + "0" * 5000, YAML, "is not a value of"),
    ],
    ids=["yaml", "json-as-yaml", "json", "json-shallower", "bomb", "itself", "number"],
)
async def test_what_is_made_to_hurt_is_refused(client: Client, text: str, media: str, said: str) -> None:
    calls = [("POST", REVIEWS, media), ("POST", MAPS, media)]
    await client.make(MAPS, {"metadata": {"name": "m"}})
    calls += [("PUT", f"{MAPS}/m", media), ("DELETE", f"{MAPS}/m", media)]
    patches = (
        [APPLY] if media == YAML else [f"application/{kind}+json" for kind in ("json-patch", "merge-patch")]
    )
    calls += [("PATCH", f"{MAPS}/m", patch) for patch in (*patches, "application/strategic-merge-patch+json")]
    for method, path, kind in calls:
        status, answer, _ = await send(client, method, path, text, kind, fieldManager="me")
        assert (status, answer["kind"], answer["reason"]) == (400, "Status", "BadRequest"), (
            method,
            kind,
            answer,
        )
        assert said in answer["message"] or "nested deeper than" in answer["message"], (method, kind)
    assert (await client.get(f"{MAPS}/m"))["metadata"]["name"] == "m"


async def test_a_json_patch_cannot_grow_without_bound(client: Client) -> None:
    definition = {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                }
            ],
        },
    }
    await client.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    things = "/apis/example.com/v1/namespaces/default/things"
    await client.make(
        things, {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "a": {}}
    )

    async def patch(operations: list[dict[str, Any]]) -> str:
        status, answer = await client.call(
            "PATCH", f"{things}/t", operations, media="application/json-patch+json"
        )
        assert status == 422, answer
        return str(answer["message"])

    deeper = [{"op": "copy", "from": "/a", "path": "/a/b"}] * DEPTH
    assert "nested deeper than" in await patch(deeper)
    wider = [{"op": "copy", "from": "/a", "path": f"/a/n{number}"} for number in range(60)]
    message = await patch(wider)
    assert "nested deeper than" in message or "copies more than" in message
    flat = [{"op": "add", "path": "/l", "value": list(range(1000))}]
    flat += [{"op": "copy", "from": "/l", "path": f"/m{number}"} for number in range(200)]
    assert "copies more than" in await patch(flat)
    assert "at most 10000 operations" in await patch([{"op": "test", "path": "/a", "value": {}}] * 10_001)


async def test_keys_given_twice(client: Client) -> None:
    twice = HEAD + "data: {a: '1'}\ndata: {a: '2'}\n"
    strict = {"fieldValidation": "Strict"}
    status, answer, _ = await send(client, "POST", MAPS, twice, YAML, **strict)
    assert status == 400
    assert answer["message"].endswith('strict decoding error: line 5: key "data" already set in map')
    status, _, warnings = await send(client, "POST", MAPS, twice, YAML)
    assert (status, warnings) == (201, ['299 - "line 5: key \\"data\\" already set in map"'])
    status, answer, warnings = await send(client, "PUT", f"{MAPS}/m", twice, YAML, fieldValidation="Ignore")
    assert (status, answer["data"], warnings) == (200, {"a": "2"}, [])

    text = '{"metadata": {"name": "m"}, "data": {"a": "1", "a": "3"}}'
    said = 'duplicate field "data.a"'
    for method, media in (("PUT", JSON), ("PATCH", "application/merge-patch+json")):
        status, answer, _ = await send(client, method, f"{MAPS}/m", text, media, **strict)
        assert (status, answer["message"].endswith(f"strict decoding error: {said}")) == (400, True)
        status, answer, warnings = await send(client, method, f"{MAPS}/m", text, media)
        assert (status, warnings) == (200, ["299 - " + json.dumps(said)])
    for name in ("m", "new"):
        given = twice.replace("name: m", f"name: {name}")
        path, manager = f"{MAPS}/{name}", {"fieldManager": "me", "force": "true"}
        status, answer, _ = await send(client, "PATCH", path, given, APPLY, **manager, **strict)
        assert (status, answer["reason"]) == (400, "BadRequest")
        status, _, warnings = await send(client, "PATCH", path, given, APPLY, **manager)
        assert status in {200, 201} and warnings == ['299 - "line 5: key \\"data\\" already set in map"']


async def test_a_deep_token_is_refused(client: Client) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    good = jwt.encode({"a": 1}, "k" * 32, algorithm="HS256").split(".")
    for token in (f"{deep}.{good[1]}.{good[2]}", f"{good[0]}.{deep}.{good[2]}"):
        answer = await client.make("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
        assert answer["status"]["authenticated"] is False


@pytest.mark.parametrize(("inner", "said"), [(NESTED, "nested too deep"), ("{", "malformed")])
def test_json_inside_a_protobuf_body_is_judged(inner: str, said: str) -> None:
    def field(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    fields = field(7, field(1, inner.encode()))
    body = field(1, field(17, fields))
    head = field(1, b"v1") + field(2, b"ConfigMap")
    with pytest.raises(WireError, match=said):
        decode_object(MAGIC + field(1, head) + field(2, body))
