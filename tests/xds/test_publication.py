"""What is put together once for all streams is what each stream by itself would have been sent."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.xds import wire
from ambit.xds.frames import Request, Resource, Response
from ambit.xds.session import ServerSession
from ambit.xds.store import Publication, Store

T, U = "type/T", "type/U"
types = st.sampled_from((T, U))
names = st.sampled_from("abc")
updates = st.tuples(
    st.just("update"),
    st.lists(
        st.tuples(types, st.dictionaries(names, st.booleans(), max_size=2), st.lists(names, max_size=2)),
        min_size=1,
        max_size=3,
    ),
)
requests = st.tuples(
    st.just("request"),
    types,
    st.lists(st.sampled_from("abc*"), max_size=2),
    st.lists(st.sampled_from("abc*"), max_size=1),
    st.dictionaries(names, st.sampled_from("0123"), max_size=2),
)
answers = st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from((None, "no")))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(updates | requests | answers, max_size=12),
    st.integers(1, 3),
    st.sampled_from(({}, {T: U})),
)
def test_a_publication_says_what_every_stream_would_have_been_told(steps, window, prerequisites):
    store = Store()
    each = ServerSession(store, window=window, prerequisites=prerequisites)
    shared = ServerSession(store, window=window, prerequisites=prerequisites)
    sent: list[Response] = []
    version = 0
    for kind, *step in steps:
        match kind:
            case "update":
                changes = []
                for type_url, present, gone in step[0]:
                    version += 1
                    resources = {
                        name: Resource(name=name, version=str(version), body=b"", on_demand=lazy)
                        for name, lazy in present.items()
                    }
                    if change := store.update(type_url, resources, gone):
                        changes.append(change)
                expected = each.notify_all(changes) if changes else []
                found = shared.publish(Publication(store, changes)) if changes else []
            case "request":
                type_url, subscribe, unsubscribe, kept = step
                request = Request(
                    type_url=type_url,
                    subscribe=tuple(subscribe),
                    unsubscribe=tuple(unsubscribe),
                    initial_versions=kept,
                )
                expected, found = each.receive(request), shared.receive(request)
            case _:
                number, error = step
                if number >= len(sent):
                    continue
                answered = sent.pop(number)
                request = Request(type_url=answered.type_url, nonce=answered.nonce, error=error)
                expected, found = each.receive(request), shared.receive(request)
        assert found == expected
        sent += found
        assert all(shared.status(kind) == each.status(kind) for kind in (T, U))


def test_who_comes_anew_is_sent_the_very_same_resources():
    store = Store()
    store.update(T, {name: Resource(name=name, version="1", body=b"") for name in "ba"})
    [first] = ServerSession(store).receive(Request(type_url=T))
    [second] = ServerSession(store).receive(Request(type_url=T))
    assert [each.name for each in first.resources] == ["a", "b"]
    assert second.resources is first.resources
    store.update(T, {"b": Resource(name="b", version="2", body=b"")})
    [third] = ServerSession(store).receive(Request(type_url=T))
    assert [each.version for each in third.resources] == ["1", "2"]


def test_a_long_answer_is_encoded_once_and_says_the_same():
    many = tuple(Resource(name=str(number), version="1", body=b"x") for number in range(wire.LONG))
    encoder = wire.Encoder()
    for nonce in ("1", "2"):
        response = Response(type_url=T, nonce=nonce, resources=many)
        assert wire.decode_response(encoder.encode(response)) == response
    other = Response(type_url=T, nonce="3", resources=many[1:], removed=("0",))
    assert wire.decode_response(encoder.encode(other)) == other
    encoder.forget()
    assert wire.decode_response(encoder.encode(response)) == response
