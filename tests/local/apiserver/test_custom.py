"""Custom kinds: definition, versions, pruning, defaults, status, printer columns, removal."""

from typing import Any

from tests.local.apiserver.conftest import Client

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def definition(**schema: Any) -> dict[str, Any]:
    spec = {
        "type": "object",
        "properties": {
            "size": {"type": "integer", "default": 3, "minimum": 1},
            "port": {"x-kubernetes-int-or-string": True},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "note": {"type": "string", "nullable": True},
            "items": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            },
            **schema,
        },
    }
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    root = {"type": "object", "properties": {"spec": spec, "status": status}}
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]

    def version(name: str, *, storage: bool) -> dict[str, Any]:
        return {
            "name": name,
            "served": True,
            "storage": storage,
            "schema": {"openAPIV3Schema": root},
            "additionalPrinterColumns": columns,
            "subresources": {
                "status": {},
                "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
            },
        }

    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [version("v1", storage=True), version("v1beta1", storage=False)],
        },
    }


def widget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


async def test_a_definition_is_established_at_once_and_discovered(client: Client) -> None:
    made = await client.make(CRDS, definition())
    conditions = {one["type"]: one["status"] for one in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["storedVersions"] == ["v1"]
    listed = await client.get("/apis/example.com/v1")
    assert [one["name"] for one in listed["resources"]] == ["widgets", "widgets/scale", "widgets/status"]
    groups = await client.get("/apis")
    found = next(one for one in groups["groups"] if one["name"] == "example.com")
    assert found["preferredVersion"]["version"] == "v1"


async def test_defaults_pruning_and_types(client: Client) -> None:
    await client.make(CRDS, definition())
    body = widget(port="http", free={"a": {"b": 1}}, note=None, unknown=1)
    made = await client.make(WIDGETS, body)
    assert made["spec"] == {"port": "http", "free": {"a": {"b": 1}}, "note": None, "size": 3}
    wrong = widget(size="big", items=[{"name": "a"}, {"name": "a"}])
    wrong["metadata"]["name"] = "x"
    status, answer = await client.call("POST", WIDGETS, wrong)
    assert status == 422
    causes = {cause["field"]: cause for cause in answer["details"]["causes"]}
    assert causes["spec.size"]["message"] == (
        'Invalid value: "big": spec.size in body must be of type integer: "big"'
    )
    assert causes["spec.items[1]"]["reason"] == "FieldValueDuplicate"


async def test_versions_show_the_same_object(client: Client) -> None:
    await client.make(CRDS, definition())
    await client.make(WIDGETS, widget(size=2))
    other = WIDGETS.replace("/v1/", "/v1beta1/")
    body = await client.get(f"{other}/w")
    assert (body["apiVersion"], body["spec"]) == ("example.com/v1beta1", {"size": 2})
    body["spec"]["size"] = 5
    status, _ = await client.call("PUT", f"{other}/w", body)
    assert status == 200
    assert (await client.get(f"{WIDGETS}/w"))["spec"]["size"] == 5
    (event,) = await client.events(other, 1)
    assert event["object"]["apiVersion"] == "example.com/v1beta1"


async def test_columns_scale_and_status(client: Client) -> None:
    await client.make(CRDS, definition())
    made = await client.make(WIDGETS, {**widget(size=2), "status": {"size": 9}})
    assert "status" not in made
    _, table = await client.call("GET", WIDGETS, accept=TABLE)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size"]
    assert table["rows"][0]["cells"] == ["w", 2]
    scale = await client.get(f"{WIDGETS}/w/scale")
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 2)


async def test_rules_are_enforced_and_those_that_do_not_compile_are_reported(client: Client) -> None:
    rule = {"rule": "self < 10", "message": "too big"}
    body = definition(size={"type": "integer", "x-kubernetes-validations": [rule]})
    await client.make(CRDS, body)
    status, answer = await client.call("POST", WIDGETS, widget(size=10))
    assert (status, answer["details"]["causes"][0]["message"]) == (422, "Invalid value: 10: too big")
    broken = definition(size={"type": "integer", "x-kubernetes-validations": [{"rule": "warp(self)"}]})
    broken["metadata"]["name"] = "gadgets.example.com"
    broken["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}
    made = await client.make(CRDS, broken)
    conditions = {one["type"]: one for one in made["status"]["conditions"]}
    assert "warp" in conditions["ValidationRulesCompile"]["message"]


async def test_objects_go_with_their_definition(client: Client) -> None:
    await client.make(CRDS, definition())
    held = widget(size=1)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    made = await client.make(WIDGETS, held)
    status, _ = await client.call("DELETE", f"{CRDS}/widgets.example.com")
    assert status == 200
    crd = await client.get(f"{CRDS}/widgets.example.com")
    assert crd["metadata"]["deletionTimestamp"]
    patch = {"metadata": {"finalizers": None}}
    await client.call("PATCH", f"{WIDGETS}/w", patch, media="application/merge-patch+json")
    status, _ = await client.call("GET", f"{CRDS}/widgets.example.com")
    assert status == 404
    status, answer = await client.call("GET", f"{WIDGETS}/{made['metadata']['name']}")
    assert (status, answer["message"]) == (404, "the server could not find the requested resource")


async def test_new_defaults_reach_stored_objects(client: Client) -> None:
    await client.make(CRDS, definition())
    made = await client.make(WIDGETS, widget(size=1))
    crd = await client.get(f"{CRDS}/widgets.example.com")
    for version in crd["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        schema["color"] = {"type": "string", "default": "red"}
    status, _ = await client.call("PUT", f"{CRDS}/widgets.example.com", crd)
    assert status == 200
    body = await client.get(f"{WIDGETS}/w")
    assert body["spec"] == {"size": 1, "color": "red"}
    assert body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_schema_that_cannot_judge_is_refused(client: Client) -> None:
    body = definition(size={"type": "string", "pattern": "("})
    status, answer = await client.call("POST", CRDS, body)
    assert status == 422
    fields = {cause["field"] for cause in answer["details"]["causes"]}
    assert fields == {
        f"spec.versions[{index}].schema.openAPIV3Schema.properties[spec].properties[size].pattern"
        for index in (0, 1)
    }


async def test_declared_fields_can_be_selected(client: Client) -> None:
    body = definition()
    for version in body["spec"]["versions"]:
        version["selectableFields"] = [{"jsonPath": ".spec.size"}]
    await client.make(CRDS, body)
    for name, size in (("a", 1), ("b", 2)):
        await client.make(WIDGETS, {**widget(size=size), "metadata": {"name": name}})
    found = await client.get(WIDGETS, fieldSelector="spec.size=2")
    assert [one["metadata"]["name"] for one in found["items"]] == ["b"]
    events = await client.events(WIDGETS, 1, fieldSelector="spec.size!=1")
    assert events[0]["object"]["metadata"]["name"] == "b"
    status, answer = await client.call("GET", WIDGETS, fieldSelector="spec.port=1")
    assert (status, answer["message"]) == (400, "field label not supported: spec.port")
