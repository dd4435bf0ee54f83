"""Server-side apply: pure merging with Hypothesis, then over HTTP."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ambit.local.apiserver.patching.apply import Owner, Owners, apply
from ambit.local.apiserver.patching.fieldset import MISSING, changes, from_fields, lookup, paths_of, to_fields
from ambit.objects.structural import inline
from tests.local.apiserver.conftest import Client
from tests.local.apiserver.test_objects import DEPLOYMENTS, deployment

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "size": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "whole": {"type": "array", "items": {"type": "string"}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "port": {"type": "integer"},
                    "weight": {"type": "integer"},
                },
            },
        },
    },
}
NAMES = st.sampled_from("abc")
PORT = st.fixed_dictionaries(
    {"name": NAMES}, optional={"port": st.integers(1, 3), "weight": st.integers(1, 2)}
)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(1, 3),
        "labels": st.dictionaries(NAMES, st.sampled_from("xy"), min_size=1),
        "whole": st.lists(NAMES, min_size=1, max_size=3),
        "tags": st.lists(NAMES, min_size=1, max_size=3, unique=True),
        "ports": st.lists(PORT, min_size=1, max_size=3, unique_by=lambda one: one["name"]),
    },
)
ME, YOU = Owner("me", "Apply"), Owner("you", "Apply")


def put(live: Any, config: Any, me: Owner, owners: Owners, *, force: bool = True) -> Any:
    return apply(SCHEMA, inline, live, config, me, owners, force=force)


@given(CONFIG)
def test_field_sets_survive_their_json_form(config: Any) -> None:
    paths = paths_of(SCHEMA, config, inline)
    assert from_fields(to_fields(paths)) == paths
    assert all(lookup(SCHEMA, config, path, inline) is not MISSING for path in paths)


@given(CONFIG, CONFIG)
def test_changes_are_what_the_field_sets_say(old: Any, new: Any) -> None:
    gained, lost = changes(SCHEMA, old, new, inline)
    before, after = paths_of(SCHEMA, old, inline), paths_of(SCHEMA, new, inline)
    assert lost == before - after
    assert after - before <= gained <= after
    for path in before & after:
        changed = lookup(SCHEMA, old, path, inline) != lookup(SCHEMA, new, path, inline)
        assert (path in gained) == (changed and not path[-1].startswith(("k:", "v:")))


@given(CONFIG, CONFIG)
def test_a_sole_owner_gets_exactly_what_it_applies(first: Any, second: Any) -> None:
    one = put({}, first, ME, {})
    assert one.value == first
    two = put(one.value, second, ME, one.owners)
    assert normal(two.value) == normal(second)
    assert two.owners == {ME: paths_of(SCHEMA, second, inline)} or not second


def normal(value: Any) -> Any:
    """Order of keyed lists and sets follows the live object; compare without it."""
    value = copy.deepcopy(value)
    for name in ("ports", "tags"):
        if name in value:
            value[name] = sorted(value[name], key=str)
    if "ports" in value:
        value["ports"] = sorted(value["ports"], key=lambda one: one["name"])
    return value


@given(CONFIG, CONFIG)
def test_applying_again_changes_nothing(mine: Any, yours: Any) -> None:
    one = put({}, mine, ME, {})
    two = put(one.value, yours, YOU, one.owners)
    three = put(two.value, yours, YOU, two.owners, force=False)
    assert three.conflicts == {} and three.value == two.value and three.owners == two.owners


@given(CONFIG, CONFIG)
def test_without_force_either_nothing_of_the_other_changes_or_there_is_a_conflict(
    mine: Any, yours: Any
) -> None:
    one = put({}, mine, ME, {})
    two = put(one.value, yours, YOU, one.owners, force=False)
    if not two.conflicts:
        for path in one.owners.get(ME, ()):
            if not path[-1].startswith(("k:", "v:")):
                assert lookup(SCHEMA, two.value, path, inline) == lookup(SCHEMA, mine, path, inline)


@given(CONFIG, CONFIG)
def test_giving_everything_up_leaves_the_other_alone(mine: Any, yours: Any) -> None:
    one = put({}, mine, ME, {})
    two = put(one.value, yours, YOU, one.owners)
    three = put(two.value, {}, ME, two.owners)
    assert normal(three.value) == normal(yours)


async def test_conflicts_name_the_manager_and_the_field(client: Client) -> None:
    path = f"{DEPLOYMENTS}/web"
    body = deployment("web")
    body["spec"]["replicas"] = 2
    patch = {"media": "application/apply-patch+yaml"}
    status, made = await client.call("PATCH", path, body, **patch, fieldManager="one")
    assert status == 201, made
    body["spec"]["replicas"] = 3
    status, answer = await client.call("PATCH", path, body, **patch, fieldManager="two")
    assert (status, answer["reason"]) == (409, "Conflict")
    assert (
        answer["message"] == 'Apply failed with 1 conflict: conflict with "one" using apps/v1: .spec.replicas'
    )
    cause = answer["details"]["causes"][0]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".spec.replicas")
    status, forced = await client.call("PATCH", path, body, **patch, fieldManager="two", force="true")
    assert (status, forced["spec"]["replicas"]) == (200, 3)
    owners = {
        entry["manager"]: "f:replicas" in entry["fieldsV1"]["f:spec"]
        for entry in forced["metadata"]["managedFields"]
    }
    assert owners == {"one": False, "two": True}


async def test_a_field_given_up_falls_back_to_its_default(client: Client) -> None:
    path = f"{DEPLOYMENTS}/web"
    body = deployment("web")
    body["spec"]["replicas"] = 2
    patch = {"media": "application/apply-patch+yaml", "fieldManager": "one"}
    await client.call("PATCH", path, body, **patch)
    del body["spec"]["replicas"]
    status, after = await client.call("PATCH", path, body, **patch)
    assert (status, after["spec"]["replicas"]) == (200, 1)
    _, again = await client.call("PATCH", path, body, **patch)
    assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_status_is_applied_on_its_own(client: Client) -> None:
    root = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways"
    api = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g"}}
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    await client.make(root, {**api, "spec": {"gatewayClassName": "ambit", "listeners": [listener]}})

    def condition(kind: str) -> dict[str, Any]:
        when = "2026-01-01T00:00:00Z"
        return {"type": kind, "status": "True", "reason": "Ok", "message": "", "lastTransitionTime": when}

    for manager, kind in (("ambit", "Accepted"), ("other", "Extra")):
        status, after = await client.call(
            "PATCH",
            f"{root}/g/status",
            {**api, "status": {"conditions": [condition(kind)]}},
            media="application/apply-patch+yaml",
            fieldManager=manager,
            force="true",
        )
        assert status == 200, after
    kinds = {one["type"] for one in after["status"]["conditions"]}
    assert {"Accepted", "Extra"} <= kinds
    assert after["metadata"]["generation"] == 1
    entries = [one for one in after["metadata"]["managedFields"] if one.get("subresource") == "status"]
    assert {one["manager"] for one in entries} == {"ambit", "other"}


async def test_an_update_takes_ownership_of_what_it_changes(client: Client) -> None:
    made = await client.make(DEPLOYMENTS, deployment("web"), fieldManager="maker")
    made["spec"]["replicas"] = 4
    await client.call("PUT", f"{DEPLOYMENTS}/web", made, fieldManager="scaler")
    body = deployment("web")
    body["spec"]["replicas"] = 1
    status, answer = await client.call(
        "PATCH", f"{DEPLOYMENTS}/web", body, media="application/apply-patch+yaml", fieldManager="applier"
    )
    assert status == 409
    assert 'conflict with "scaler"' in answer["message"]
