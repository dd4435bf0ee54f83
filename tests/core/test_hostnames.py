"""Host names with wildcards: which covers which."""

from hypothesis import given
from hypothesis import strategies as st

from ambit.core.hostnames import ANY, by_precision, covering, covers

_names = st.lists(st.sampled_from(["a", "b", "com"]), min_size=1, max_size=4).map(".".join)
_patterns = st.one_of(st.just(ANY), _names, _names.map("*.{}".format))


@given(_patterns, st.lists(_patterns, max_size=20))
def test_the_patterns_that_cover_a_name_come_by_precision(name: str, patterns: list[str]) -> None:
    found = list(covering(name))
    assert {each for each in patterns if covers(each, name)} == set(patterns) & set(found)
    assert found == sorted(found, key=by_precision) and len(set(found)) == len(found)
