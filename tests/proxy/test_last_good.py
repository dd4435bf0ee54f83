"""What an agent keeps for the next one of its pod: all of it or nothing, and nothing that is damaged."""

import datetime as dt
import stat
from pathlib import Path

import pytest

from ambit.agent.csr import Certificate, checked, new_key, signing_request
from ambit.ca.authority import Authority
from ambit.ca.request import parse_request
from ambit.core.identity import Identity
from ambit.plan.values import CLUSTER, LISTENER
from ambit.proxy.last_good import LastGood
from ambit.xds.frames import Resource

TYPES = (CLUSTER, LISTENER)
BODY = b"cluster " * 100
WAY = Identity("cluster.local", "shop", "way")


def one(version: str = "1") -> Resource:
    return Resource(name="one", version=version, body=BODY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last-good.db"


def opened(path: Path) -> LastGood:
    made = LastGood(path)
    made.open()
    return made


def found(path: Path) -> dict[str, list[tuple[str, str, bytes]]] | None:
    """What the next agent finds: name, version and body of resources by type."""
    kept = opened(path)
    configuration = kept.configuration(TYPES)
    kept.close()
    if configuration is None:
        return None
    return {kind: [(each.name, each.version, each.body) for each in of] for kind, of in configuration.items()}


def test_the_next_agent_finds_what_was_kept_last(path: Path) -> None:
    kept = opened(path)
    kept.keep(CLUSTER, [one(), Resource(name="two", version="1", body=b"")])
    kept.keep(LISTENER, [])
    kept.keep(CLUSTER, [one("2")], ["two"])
    # As when it is killed: it closes nothing.
    assert found(path) == {CLUSTER: [("one", "2", BODY)], LISTENER: []}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_part_of_it_is_nothing(path: Path) -> None:
    opened(path).keep(CLUSTER, [one()])
    assert found(path) is None


def test_what_is_damaged_is_removed(path: Path) -> None:
    kept = opened(path)
    for each in TYPES:
        kept.keep(each, [one()])
    kept.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"x" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    assert found(path) is None
    again = opened(path)
    for each in TYPES:
        again.keep(each, [one()])
    assert found(path) == {each: [("one", "1", BODY)] for each in TYPES}


def test_when_a_change_cannot_be_written_nothing_stays(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next agent would otherwise serve without the change, a policy say."""
    kept = opened(path)
    for each in TYPES:
        kept.keep(each, [one()])
    assert kept._database is not None
    kept._database.execute("PRAGMA max_page_count = 1")
    kept.keep(CLUSTER, [Resource(name=f"{n}", version="1", body=f"{n}".encode() * 999) for n in range(5_000)])
    assert not path.exists()
    assert "It is removed" in caplog.text
    kept.keep(CLUSTER, [one()])
    assert found(path) is None


def certificate() -> Certificate:
    now = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    authority, key = Authority.create("cluster.local", now - dt.timedelta(1)), new_key()
    request = parse_request(signing_request(WAY, key))
    return checked(WAY, key, authority.issue(WAY, request.public_key, now, dt.timedelta(1)))


def test_the_certificate_is_kept_until_it_is_dropped(path: Path) -> None:
    kept, given = opened(path), certificate()
    assert kept.load(WAY) is None
    assert kept.save(given) == ""
    assert opened(path).load(WAY) == given
    assert opened(path).load(Identity("cluster.local", "shop", "other")) is None
    kept.drop(WAY)
    assert opened(path).load(WAY) is None
