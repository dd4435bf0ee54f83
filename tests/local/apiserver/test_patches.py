"""JSON, merge and strategic patches: properties, published examples, and over HTTP."""

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.apiserver.patching.patch_json import json_patch, merge_patch
from ambit.objects import builtin
from ambit.objects.strategic import PatchError, strategic_patch
from tests.local.apiserver.conftest import Client
from tests.local.apiserver.test_objects import DEPLOYMENTS, deployment

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OPERATION = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "other"])},
    optional={
        "path": st.sampled_from(["", "/a", "/a/0", "/a/-", "/b/c", "/~1", "x"]),
        "from": st.sampled_from(["/a", "/b", "/a/0"]),
        "value": JSON,
    },
)


def diff(old: Any, new: Any) -> Any:
    """The merge patch from one object without nulls to another."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    changed = {key: diff(old.get(key), value) for key, value in new.items() if old.get(key) != value}
    return {**changed, **dict.fromkeys(old.keys() - new.keys())}


def no_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: no_nulls(item) for key, item in value.items() if item is not None}
    return value


@given(JSON, st.lists(OPERATION, max_size=4))
def test_a_json_patch_works_or_fails_and_never_changes_its_argument(document: Any, patch: Any) -> None:
    before = copy.deepcopy(document)
    with contextlib.suppress(PatchError):
        json_patch(document, patch)
    assert document == before


@given(st.dictionaries(st.sampled_from("abc"), JSON), st.dictionaries(st.sampled_from("abc"), JSON))
def test_a_merge_patch_made_from_a_difference_reaches_the_goal(old: Any, new: Any) -> None:
    old, new = no_nulls(old), no_nulls(new)
    assert no_nulls(merge_patch(old, diff(old, new))) == new


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        (
            {"foo": ["bar", "baz"]},
            [{"op": "add", "path": "/foo/1", "value": "qux"}],
            {"foo": ["bar", "qux", "baz"]},
        ),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"a": [1, 2]}, [{"op": "copy", "from": "/a/0", "path": "/a/-"}], {"a": [1, 2, 1]}),
    ],
)
def test_examples_of_rfc_6902(document: Any, patch: Any, result: Any) -> None:
    assert json_patch(document, patch) == result


def test_a_failed_test_is_an_error() -> None:
    with pytest.raises(PatchError):
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": True}])


POD = builtin.schema_of("", "v1", "Pod") or {}


def strategic(document: Any, patch: Any) -> Any:
    return strategic_patch(document, patch, POD, builtin.resolve)


def pod(*containers: Any) -> Any:
    return {"spec": {"containers": list(containers)}}


def test_lists_merge_by_their_key() -> None:
    document = pod({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    patched = strategic(document, pod({"name": "b", "image": "2"}, {"name": "c", "image": "1"}))
    assert patched == pod(
        {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "1"}
    )


def test_directives() -> None:
    document = pod({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    assert strategic(document, pod({"name": "a", "$patch": "delete"})) == pod({"name": "b", "image": "1"})
    replaced = strategic(document, pod({"$patch": "replace"}, {"name": "z"}))
    assert replaced == pod({"name": "z"})
    ordered = strategic(document, {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}})
    assert [one["name"] for one in ordered["spec"]["containers"]] == ["b", "a"]
    finalizers = {"metadata": {"finalizers": ["x", "y"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}
    assert strategic(finalizers, patch) == {"metadata": {"finalizers": ["y"]}}
    volumes = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    change = {
        "spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}
    }
    assert strategic(volumes, change)["spec"]["volumes"] == [{"name": "v", "secret": {"secretName": "s"}}]


async def test_patches_over_http(client: Client) -> None:
    await client.make(DEPLOYMENTS, deployment("web"))
    path = f"{DEPLOYMENTS}/web"
    operations = [{"op": "replace", "path": "/spec/replicas", "value": 4}]
    _, body = await client.call("PATCH", path, operations, media="application/json-patch+json")
    assert body["spec"]["replicas"] == 4
    image = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "new"}]}}}}
    _, body = await client.call("PATCH", path, image, media="application/strategic-merge-patch+json")
    assert body["spec"]["template"]["spec"]["containers"][0]["image"] == "new"
    assert body["metadata"]["generation"] == 3
    status, body = await client.call("PATCH", path, {}, media="text/plain")
    assert (status, body["reason"]) == (415, "UnsupportedMediaType")


async def test_custom_kinds_refuse_strategic_patches(client: Client) -> None:
    path = "/apis/networking.istio.io/v1/namespaces/default/serviceentries/x"
    status, body = await client.call("PATCH", path, {}, media="application/strategic-merge-patch+json")
    assert (status, body["reason"]) == (415, "UnsupportedMediaType")


async def test_scale(client: Client) -> None:
    await client.make(DEPLOYMENTS, deployment("web"))
    scale = await client.get(f"{DEPLOYMENTS}/web/scale")
    assert (scale["spec"], scale["status"]["selector"]) == ({"replicas": 1}, "app=web")
    patch = {"spec": {"replicas": 3}}
    _, scale = await client.call(
        "PATCH", f"{DEPLOYMENTS}/web/scale", patch, media="application/merge-patch+json"
    )
    assert scale["spec"]["replicas"] == 3
    assert (await client.get(f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 3


async def test_a_status_patch_of_a_pod_takes_its_annotations_and_nothing_else(client: Client) -> None:
    pods = "/api/v1/namespaces/default/pods"
    container = {"name": "c", "image": "one"}
    made = await client.make(pods, {"metadata": {"name": "web"}, "spec": {"containers": [container]}})

    async def patch(value: Any) -> tuple[int, Any]:
        media = "application/merge-patch+json"
        return await client.call("PATCH", f"{pods}/web/status", value, media=media)

    status, changed = await patch(
        {
            "metadata": {"annotations": {"note": "here"}, "labels": {"a": "b"}, "ownerReferences": []},
            "spec": {"containers": [{**container, "image": "another"}]},
            "status": {"phase": "Running"},
        }
    )
    assert status == 200
    assert (changed["metadata"]["annotations"], changed["metadata"]["labels"]) == (
        {"note": "here"},
        {"a": "b"},
    )
    assert changed["spec"]["containers"][0]["image"] == "one"
    assert changed["status"]["phase"] == "Running"
    status, changed = await patch({"metadata": {"annotations": {"note": None}}})
    assert (status, "annotations" in changed["metadata"]) == (200, False)
    assert (changed["metadata"]["uid"], changed["status"]["phase"]) == (made["metadata"]["uid"], "Running")
    status, answer = await patch({"metadata": {"uid": "another's", "annotations": {"note": "x"}}})
    assert (status, answer["reason"]) == (409, "Conflict")


def test_nothing_is_deleted_from_what_is_no_list() -> None:
    with pytest.raises(PatchError, match="a is a list"):
        strategic_patch({"a": 1}, {"$deleteFromPrimitiveList/a": [1]}, {}, lambda schema: schema)
