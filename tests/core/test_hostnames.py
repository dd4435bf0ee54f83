"""Host names with wildcards: which covers which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.hostnames import ANY, by_precision, covering, covers, is_name, is_pattern

_names = st.lists(st.sampled_from(["a", "b", "com"]), min_size=1, max_size=4).map(".".join)
_patterns = st.one_of(st.just(ANY), _names, _names.map("*.{}".format))


@given(_patterns, st.lists(_patterns, max_size=20))
def test_the_patterns_that_cover_a_name_come_by_precision(name: str, patterns: list[str]) -> None:
    found = list(covering(name))
    assert {each for each in patterns if covers(each, name)} == set(patterns) & set(found)
    assert found == sorted(found, key=by_precision) and len(set(found)) == len(found)


@pytest.mark.parametrize(
    "text",
    ["a", "db.example.com", "_sip._tcp.example", "a-b.c.", "EXAMPLE.com", "1.2.3.4.in-addr.arpa", "1a"],
)
def test_names(text: str) -> None:
    assert is_name(text) and is_pattern(text) and is_pattern(f"*.{text}") and not is_name(f"*.{text}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nb.example",
        "a.example\n",
        "a\x00b",
        "240.240.0.5",
        "127.1",
        "2130706433",
        "0x7f000001",
        "a.0x1.",
        "fd00::1",
        "a/b",
        "a:80",
        "-a.b",
        "a..b",
        "a.*",
        "*.*",
        "ä.example",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "a b",
    ],
)
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text) and not is_pattern(text)


def test_a_star_is_no_name_of_one_host() -> None:
    assert is_pattern("*") and not is_name("*")
