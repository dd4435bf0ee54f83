"""What people write of a Secret, as an API server keeps it."""

from typing import Any

import pytest

from ambit.objects.written import kept


def secret(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "front"}, **fields}


def test_string_data_is_added_to_data_and_counts_of_one_name() -> None:
    given = secret(data={"a": "YQ==", "b": "Yg=="}, stringData={"b": "ä", "c": None})
    assert kept("Secret", "", given) == secret(data={"a": "YQ==", "b": "w6Q=", "c": ""})
    assert "stringData" in given, "what was given stays as it is"
    assert kept("Secret", "", secret(stringData={"a": "b"})) == secret(data={"a": "Yg=="})
    assert kept("Secret", "", secret(data=None, stringData=None)) == secret(data={})


def test_other_objects_are_as_they_are_written() -> None:
    for kind, group in (("ConfigMap", ""), ("Secret", "example.org")):
        given = {"kind": kind, "stringData": {"a": "b"}}
        assert kept(kind, group, given) is given


@pytest.mark.parametrize(("wrong", "said"), [({"pin": 1}, "stringData.pin"), (["a"], "stringData is no map")])
def test_what_an_api_server_refuses_is_named_without_its_content(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        kept("Secret", "", secret(stringData=wrong))
    assert "1" not in str(refused.value)
