"""Dependencies: what was read is found by what was touched, and forgetting leaves nothing."""

from hypothesis import given
from hypothesis import strategies as st

from ambit.node.configuration.tracking import Answer, Dependencies

answers = st.builds(Answer, st.sampled_from(["pod", "cluster"]), st.sampled_from("abc"))
keys = st.frozensets(st.sampled_from("wxyz"))


@given(st.lists(st.tuples(answers, st.none() | keys)), keys)
def test_readers_of_touched_keys_are_found(
    changes: list[tuple[Answer, frozenset[str] | None]], touched: frozenset[str]
) -> None:
    dependencies = Dependencies()
    expected: dict[Answer, frozenset[str]] = {}
    for answer, read in changes:
        if read is None:
            dependencies.forget(answer)
            expected.pop(answer, None)
        else:
            dependencies.record(answer, read)
            expected[answer] = read
    assert dependencies.on(touched) == {answer for answer, read in expected.items() if read & touched}
    assert list(dependencies) == sorted(expected)
    for answer in expected:
        dependencies.forget(answer)
    assert len(dependencies) == 0
    assert dependencies._readers == {}
