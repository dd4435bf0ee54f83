"""The state file: rules 1 to 4 of `ambit.node.state.mesh`, damage and a full disk."""

import ipaddress
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings

from ambit.core.address import Address
from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.model.workload import NetworkMode, TunnelProtocol, Workload
from ambit.node.state.database import StateLost, StateNotWritten
from ambit.node.state.mesh import MeshState
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, Value, to_resource, type_of
from tests.node.state.full_disk import full_disk
from tests.node.state.meshes import ADDRESSES, steps, store, workload


@pytest.fixture
def state(tmp_path: Path) -> MeshState:
    return MeshState(tmp_path / "state.sqlite")


def preferred(values: Iterable[Value], address: Address) -> Workload | None:
    found = [
        value
        for value in values
        if isinstance(value, Workload)
        and address in value.addresses
        and value.network_mode is NetworkMode.STANDARD
    ]
    return min(
        found,
        key=lambda each: ("//Pod/" not in each.uid, each.tunnel is not TunnelProtocol.HBONE, each.uid),
        default=None,
    )


@settings(max_examples=60, deadline=None)
@given(steps)
def test_3_lookups_agree_with_a_snapshot(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[list[Value], list[Value]]]
) -> None:
    state = MeshState(tmp_path_factory.mktemp("state") / "state.sqlite", cached=len(ADDRESSES))
    kept: dict[tuple[str, str], Value] = {}
    for put, remove in changes:
        store(state, put, remove)
        for value in remove:
            kept.pop((type_of(value), value.key), None)
        kept |= {(type_of(value), value.key): value for value in put}
        for address in ADDRESSES:  # after each step: former answers must not stay
            assert state.workload_by_address("", address) == preferred(kept.values(), address)
    view = Snapshot(
        [value for value in kept.values() if isinstance(value, Workload)],
        [value for value in kept.values() if isinstance(value, Service)],
        [value for value in kept.values() if isinstance(value, Authorization)],
    )
    for address in [*ADDRESSES, ipaddress.ip_address("10.1.9.9"), ipaddress.ip_address("10.9.9.9")]:
        for namespace in ("default", "other"):
            assert state.service_by_address("", address, client_namespace=namespace) == (
                view.service_by_address("", address, client_namespace=namespace)
            )
    for value in kept.values():
        match value:
            case Workload():
                assert state.workload(value.uid) == value
                assert state.policies_for(value) == view.policies_for(value)
            case Service():
                assert state.service(value.key) == value
                assert tuple(state.endpoints(value)) == tuple(view.endpoints(value))
                assert value in state.services_by_hostname(value.hostname)
            case Authorization():
                assert state.authorization(value.key) == value
    for value in list(kept.values()):
        store(state, [], [value])
    for table in ("resource", "address", "hostname", "endpoint", "policy"):
        assert state.database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    state.close()


def test_1_bodies_and_versions_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    first = MeshState(path)
    web = workload("c//Pod/default/x", addresses=(ADDRESSES[0],))
    store(first, [web])
    for type_url in (ADDRESS_TYPE, AUTHORIZATION_TYPE):
        assert not first.complete
        first.mark_complete(type_url)
    first.close()
    again = MeshState(path)
    assert again.complete
    assert again.versions(ADDRESS_TYPE) == {web.uid: to_resource(web).version}
    assert again.workload_by_address("", ADDRESSES[0]) == web
    assert path.stat().st_mode & 0o777 == 0o600


def test_2_a_bad_resource_is_refused_alone(state: MeshState) -> None:
    web = workload("c//Pod/default/x")
    other = workload("c//Pod/default/y")
    store(state, [web])
    bad = Resource(name=web.uid, version="2", body=b"\x0a\x05broken")
    stored = state.apply(ADDRESS_TYPE, [bad, to_resource(other)], [])
    assert stored.changed == (other.uid,)
    assert set(stored.refused) == {web.uid}
    assert state.workload(web.uid) == web


def test_4_the_cache_is_bounded(tmp_path: Path) -> None:
    state = MeshState(tmp_path / "state.sqlite", cached=10)
    made = [workload(f"c//Pod/default/{number}") for number in range(50)]
    store(state, list(made))
    assert [state.workload(each.uid) for each in made] == made
    assert len(state._values) == 10


def test_ranges_are_found_without_reading_every_address(state: MeshState) -> None:
    statements: list[str] = []
    state.database.set_trace_callback(statements.append)
    assert state.service_by_address("", ADDRESSES[0]) is None
    state.database.set_trace_callback(None)
    (ranges,) = [each for each in statements if "DISTINCT" in each]
    plan = state.database.execute(f"EXPLAIN QUERY PLAN {ranges}").fetchall()
    assert "address_ranges" in str(plan)


def test_a_pod_is_preferred_to_another_workload_with_its_address(state: MeshState) -> None:
    entry = workload("c/networking.istio.io/WorkloadEntry/default/a", addresses=(ADDRESSES[0],))
    pod = workload("c//Pod/default/z", addresses=(ADDRESSES[0],))
    store(state, [entry, pod])
    assert state.workload_by_address("", ADDRESSES[0]) == pod


@pytest.mark.parametrize("damage", ["truncated", "nonsense", "other version"])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.sqlite"
    state = MeshState(path)
    store(state, [workload(f"c//Pod/default/{number}") for number in range(200)])
    state.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if damage == "other version":
        state.database.execute("PRAGMA user_version = 99")
    state.close()
    if damage == "truncated":
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    elif damage == "nonsense":
        path.write_bytes(b"nonsense" * 1000)
    again = MeshState(path)
    assert again.versions(ADDRESS_TYPE) == {}
    assert not again.complete
    assert path.with_name("state.sqlite.damaged").exists()


def test_a_full_disk_keeps_what_was_there(state: MeshState) -> None:
    web = workload("c//Pod/default/x")
    store(state, [web])
    pages = state.database.execute("PRAGMA page_count").fetchone()[0]
    state.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateNotWritten, match="full"):
        store(state, [workload(f"c//Pod/default/{number}", hostname="h" * 200) for number in range(500)])
    assert state.workload(web.uid) == web
    assert state.count(ADDRESS_TYPE) == 1


def test_1_what_a_full_disk_does_not_take_counts_and_is_stored_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = MeshState(path)
    before, gone = workload("c//Pod/default/before"), workload("c//Pod/default/gone")
    store(state, [before, gone])
    changed = msgspec.structs.replace(before, hostname="changed")
    new = [workload(f"c//Pod/default/{number}", hostname="h" * 200) for number in range(50)]
    with full_disk():
        store(state, [changed, *new[:30]], [gone])
        store(state, new[30:])
        assert "I/O error" in state.unstored
        assert state.workload(before.uid) == changed
        assert all(state.workload(each.uid) == each for each in new)
        assert state.workload(gone.uid) is None
        assert set(state.versions(ADDRESS_TYPE).values()) == {"unstored"}
        assert gone.uid not in state.versions(ADDRESS_TYPE)
        with pytest.raises(StateNotWritten, match="I/O error"):
            state.keep("own", b"not in memory")
        assert not state.flush()
    assert state.flush()
    assert state.unstored == ""
    assert "unstored" not in state.versions(ADDRESS_TYPE).values()
    state.keep("own", b"on disk")
    state.close()
    again = MeshState(path)
    assert again.workload(before.uid) == changed
    assert all(again.workload(each.uid) == each for each in new)


def test_1_an_agent_that_ends_meanwhile_has_what_is_on_disk_and_its_versions(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = MeshState(path)
    before = workload("c//Pod/default/before")
    store(state, [before])
    versions = state.versions(ADDRESS_TYPE)
    with full_disk():
        store(state, [workload("c//Pod/default/new"), msgspec.structs.replace(before, hostname="changed")])
        state.close()
    again = MeshState(path)
    assert again.versions(ADDRESS_TYPE) == versions
    assert again.workload(before.uid) == before


def test_1_a_commit_that_fails_with_room_gives_back_what_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.sqlite"
    state = MeshState(path)
    before = workload("c//Pod/default/before")
    store(state, [before])
    with full_disk():
        store(state, [msgspec.structs.replace(before, hostname="changed")])
        monkeypatch.setattr("ambit.node.state.database._has_room", lambda *_: True)
        with pytest.raises(StateNotWritten):
            state.flush()
    assert state.workload(before.uid) == before
    assert "unstored" not in state.versions(ADDRESS_TYPE).values()


def test_a_full_disk_at_the_start_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = MeshState(path)
    before = workload("c//Pod/default/before")
    store(state, [before])
    state.close()
    with full_disk(), pytest.raises(StateNotWritten, match="cannot open"):
        MeshState(path)
    assert MeshState(path).workload(before.uid) == before


def test_damage_in_use_is_told_and_reopened(state: MeshState, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def execute(self, *_: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        def close(self) -> None:
            pass

    monkeypatch.setattr(state, "database", Broken())
    with pytest.raises(StateLost):
        state.workload("c//Pod/default/x")
    state.reopen()
    assert state.workload("c//Pod/default/x") is None
