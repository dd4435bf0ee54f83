"""What reads the same to servers that are shown `_` for `-`."""

from hypothesis import given
from hypothesis import strategies as st

from ambit.envoy.http.taken_headers import lookalikes


def test_every_spelling_is_one_but_for_the_header_itself() -> None:
    assert set(lookalikes("a-b-c")) == {"a_b-c", "a-b_c", "a_b_c"}
    assert lookalikes("traceparent") == []


@given(st.from_regex(r"[a-z0-9]{1,4}(-[a-z0-9]{1,4}){0,4}", fullmatch=True))
def test_each_reads_as_the_header_and_none_is_told_twice(header: str) -> None:
    found = lookalikes(header)
    assert len(set(found)) == len(found) == 2 ** header.count("-") - 1
    assert {each.replace("_", "-") for each in found} <= {header} and header not in found
