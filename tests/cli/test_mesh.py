"""Which pods of the mesh are asked."""

from typing import Any

from ambit.cli.mesh import in_charge


def pod(
    name: str, node: str, *, ready: bool = True, leaving: bool = False, made: str = "1"
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{made}Z"}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"conditions": conditions}}


def names(*pods: dict[str, Any]) -> list[str]:
    return [each["metadata"]["name"] for each in in_charge(pods)]


def test_of_two_pods_of_a_node_the_one_that_serves_is_asked() -> None:
    old, new = pod("old", "one"), pod("new", "one", ready=False, made="2")
    assert names(pod("other", "two"), new, old) == ["old", "other"], "the new one waits for its turn"
    assert names(pod("old", "one", ready=False), pod("new", "one", made="2")) == ["new"]
    assert names(pod("old", "one", leaving=True), new) == ["new"], "the old one only keeps connections"
    assert names(pod("new", "one", made="2"), old) == ["new"]
    assert names(pod("old", "one", leaving=True)) == ["old"]
