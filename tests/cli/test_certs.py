"""What `ambit certs` prints."""

import datetime as dt

import pytest

from ambit.cli.authority import problems
from ambit.cli.commands.certs import COLUMNS, WIDE_COLUMNS, of_namespace, rows, short_rows, summary
from ambit.cli.commands.control import _lifetime
from ambit.core.errors import BadInput

NOW = 1_800_000_000.0


def part(serial: str, ends: float, valid: bool = True) -> dict[str, object]:
    return {
        "serialNumber": serial,
        "expirationTime": "then",
        "validFrom": "before",
        "valid": valid,
        "ends": ends,
    }


def test_a_leaf_shows_when_it_ends_and_which_root_it_ends_in() -> None:
    entry = {
        "identity": "spiffe://cluster.local/ns/a/sa/b",
        "state": "Available",
        "certChain": [part("1", NOW + 3_700), part("2", NOW + 90_061)],
        "rootCerts": [part("3", NOW - 10, valid=False), part("4", NOW + 86_400 * 3650)],
        "root": "4",
        "renewal": NOW + 61,
    }
    waiting = {
        "identity": "spiffe://cluster.local/ns/a/sa/c",
        "state": "Unavailable: away",
        "certChain": [],
        "rootCerts": [],
        "renewal": NOW - 1,
    }
    found = list(rows({"certificates": [entry, waiting]}, NOW))
    assert all(len(row) == len(WIDE_COLUMNS) - 1 for row in found)
    assert [[row[1], *row[3:5], *row[7:]] for row in found] == [
        ["Leaf", "true", "1", "1h1m", "1m1s", "4"],
        ["Intermediate", "true", "2", "1d1h", "", ""],
        ["Root", "false", "3", "10s ago", "", ""],
        ["Root", "true", "4", "3650d", "", ""],
        ["NA", "false", "", "", "now", ""],
    ]
    short = list(short_rows({"certificates": [entry, waiting]}, NOW))
    assert all(len(row) == len(COLUMNS) - 1 for row in short)
    assert short == [
        ["a/b", "Available", "1h1m", "1m1s", "4"],
        ["a/c", "Unavailable: away", "", "now", ""],
    ]
    expired = entry | {"certChain": [part("1", NOW - 60, valid=False)]}
    (row,) = short_rows({"certificates": [expired]}, NOW)
    assert row[1:3] == ["Available, not valid", "1m ago"]


def test_a_ztunnel_tells_less() -> None:
    chain = [{"serialNumber": "1", "expirationTime": "then", "validFrom": "before"}]
    entry = {"identity": "x", "state": "Available", "certChain": chain, "rootCerts": []}
    assert list(rows({"certificates": [entry]}, NOW)) == [
        ["x", "Leaf", "Available", "true", "1", "then", "before", "", "", ""]
    ]
    assert list(short_rows({"certificates": [entry]}, NOW)) == [["x", "Available", "", "", ""]]


@pytest.mark.parametrize(
    ("source", "signs_from", "problem", "told"),
    [
        ("cacerts", "cacerts", "", ["cacerts"]),
        ("cacerts", "istio-ca-secret", "", ["istio-ca-secret", "cacerts, after this change"]),
        ("cacerts", "istio-ca-secret", "bad", ["istio-ca-secret", "cacerts, as soon as it can be followed"]),
        (
            "istio-ca-secret",
            "",
            "",
            ["ambit-ca, which keeps the former authority", "istio-ca-secret, after this change"],
        ),
        ("", "", "", ["(deleted)"]),
    ],
)
def test_who_signs_is_told_apart_from_who_waits(
    source: str, signs_from: str, problem: str, told: list[str]
) -> None:
    status = {
        "phase": "renewing",
        "source": source,
        "signsFrom": signs_from,
        "signer": "0",
        "signerEnds": NOW,
        "nodes": 0,
        "behind": [],
        "latestEnd": None,
        "revocationEnd": None,
        "revoked": 0,
        "problem": problem,
    }
    found = dict(summary(status, NOW))
    assert [found[title] for title in ("From", "Waiting") if title in found] == [
        f"Secret ambit-system/{each}" for each in told
    ]


def test_the_authority_in_words() -> None:
    status = {
        "phase": "spreading",
        "source": "cacerts",
        "signsFrom": "cacerts",
        "signer": "0123456789abcdef0123",
        "signerEnds": NOW + 86_400,
        "nodes": 3,
        "behind": ["node2"],
        "latestEnd": NOW + 7_200,
        "revocationEnd": NOW + 3_600,
        "revoked": 2,
        "problem": "",
    }
    assert dict(summary(status, NOW)) == {
        "State": "a new root is spread; the former authority still signs",
        "From": "Secret ambit-system/cacerts",
        "Signer": "0123456789abcdef, ends in 1d",
        "Nodes": "2 of 3 have acknowledged",
        "Waiting for": "node2",
        "At the latest": "next step in 2h",
        "Revocation lists": "2 revoked; valid for 1h",
    }
    status |= {"phase": "steady", "behind": [], "latestEnd": None, "revocationEnd": None, "problem": "wrong"}
    told = dict(summary(status, NOW))
    assert told["State"] == "steady" and told["Problem"] == "wrong" and "Waiting for" not in told


def test_what_an_operator_should_look_at() -> None:
    root = {"serialNumber": "7", "signs": True, "ends": NOW + 86_400 * 3650}
    sound = {
        "problem": "",
        "source": "cacerts",
        "signerEnds": NOW + 86_400 * 365,
        "certificates": [root, {"serialNumber": "6", "signs": False, "ends": NOW + 1}],
        "revocationEnd": NOW + 86_400 * 7,
    }
    assert list(problems(sound, NOW)) == []
    for change, words in (
        ({"problem": "wrong key"}, "wrong key"),
        ({"source": ""}, "is gone"),
        ({"signerEnds": NOW + 86_400 * 29}, "who signs ends at 2027-02-13"),
        ({"certificates": [root | {"ends": NOW + 1}]}, "root 7 ends at"),
        ({"revocationEnd": NOW + 3600}, "everybody is refused"),
    ):
        [problem] = problems(sound | change, NOW)
        assert words in problem


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400)])
def test_lifetimes(text: str, seconds: int) -> None:
    assert _lifetime(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "90", "-5m", "1d", "9s", "721h", "²s"])
def test_what_is_no_lifetime(text: str) -> None:
    with pytest.raises(BadInput):
        _lifetime(text)


def test_certificates_of_one_namespace() -> None:
    dump = {"certificates": [{"identity": f"spiffe://cluster.local/ns/{name}/sa/a"} for name in ("a", "b")]}
    assert of_namespace(dump, None) is dump
    assert of_namespace(dump, "b")["certificates"] == dump["certificates"][1:]
    assert of_namespace(dump, "c")["certificates"] == []
