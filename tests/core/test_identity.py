import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity

PART = st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True)


@given(PART, PART, PART)
def test_uri_round_trip(trust_domain: str, namespace: str, account: str) -> None:
    identity = Identity(trust_domain, namespace, account)
    assert Identity.parse(identity.uri) == identity
    assert "spiffe://" + identity.principal == identity.uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://td",
        "spiffe://td/ns/a/sa/",
        "spiffe://td/ns//sa/b",
        "http://td/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b/c",
    ],
)
def test_refuses_other_forms(text: str) -> None:
    with pytest.raises(ValueError, match="is not spiffe"):
        Identity.parse(text)
