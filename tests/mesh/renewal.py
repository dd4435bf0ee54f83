"""Certificates that are renewed, and what who talks meanwhile sees of it."""

from ambit.testing.mesh import Mesh
from tests.mesh.traffic import attempts


def serials(mesh: Mesh, namespace: str) -> dict[tuple[str, str], str]:
    """Of each leaf of the namespace, by node and identity."""
    return {
        (node, entry["identity"]): entry["certChain"][0]["serialNumber"]
        for node, entries in mesh.dump("certs").items()
        for entry in entries
        if entry["certChain"] and f"/ns/{namespace}/" in entry["identity"]
    }


def all_renewed(mesh: Mesh, namespace: str) -> None:
    """Until each certificate of the namespace is another one than now."""
    before = serials(mesh, namespace)
    assert before

    def renewed() -> bool:
        now = serials(mesh, namespace)
        return now.keys() == before.keys() and all(now[each] != before[each] for each in before)

    mesh.wait("all certificates are new", renewed)


def nobody_noticed(mesh: Mesh, namespace: str, since: float) -> None:
    """Every request of `tests.mesh.traffic` since then was answered, on new connections and on the one that was open
    all the time, and who is denied never was."""
    seen = attempts(mesh, namespace, since=since)
    assert {each.kind for each in seen} == {"fresh", "kept"}
    assert [each for each in seen if each.result != 200] == []
    assert [each for each in attempts(mesh, namespace, "denied") if each.result == 200] == []
