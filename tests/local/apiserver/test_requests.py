"""Paths, queries, headers and bodies: what they mean, and that none of them breaks the server."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.apiserver import negotiation, reads
from ambit.local.apiserver.deletion import read_options as read_delete_options
from ambit.local.apiserver.failures import ApiFailure
from ambit.local.apiserver.kinds.builtin import FIELD_READERS, KINDS
from ambit.local.apiserver.pods.logs import read_options
from ambit.local.apiserver.requests import parse_target
from ambit.local.apiserver.storage.store import Store

PODS = next(kind for kind in KINDS if kind.plural == "pods")
TEXT = st.text(max_size=12) | st.sampled_from(
    ["0", "1", "9" * 5000, "²", "-1", "a=b", "a in (b", "!a", "true"]
)


@pytest.mark.parametrize(
    ("method", "path", "query", "target"),
    [
        ("GET", "/api/v1/pods", {}, ("list", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/namespaces/a/pods/b", {}, ("get", "", "v1", "a", "pods", "b", "")),
        ("GET", "/api/v1/namespaces/a/pods/b/log", {}, ("get", "", "v1", "a", "pods", "b", "log")),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            {},
            ("deletecollection", "apps", "v1", "a", "deployments", "", ""),
        ),
        ("GET", "/api/v1/namespaces/a", {}, ("get", "", "v1", "a", "namespaces", "a", "")),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            {},
            ("update", "", "v1", "a", "namespaces", "a", "finalize"),
        ),
        ("GET", "/api/v1/nodes", {"watch": "1"}, ("watch", "", "v1", "", "nodes", "", "")),
    ],
)
def test_targets(method: str, path: str, query: dict[str, str], target: tuple[str, ...]) -> None:
    found = parse_target(method, path, query)
    assert found is not None
    parts = (
        found.verb,
        found.group,
        found.version,
        found.namespace,
        found.plural,
        found.name,
        found.subresource,
    )
    assert parts == target


@given(st.text(alphabet="/aapisv1 ", max_size=30))
def test_any_path_is_read(path: str) -> None:
    parse_target("GET", "/" + path, {})


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                "labelSelector",
                "fieldSelector",
                "resourceVersion",
                "resourceVersionMatch",
                "limit",
                "continue",
                "sendInitialEvents",
                "tailLines",
                "sinceSeconds",
                "sinceTime",
                "gracePeriodSeconds",
                "propagationPolicy",
            ),
            TEXT,
        ),
    )
)
def test_any_query_is_answered_or_refused(query: dict[str, str]) -> None:
    store = Store(None, FIELD_READERS)
    readers: list[Any] = [
        lambda: reads.list_page(store, PODS, reads.read_filter(PODS, "", "", query), query),
        lambda: reads.plan_watch(store, PODS, reads.read_filter(PODS, "", "", query), query),
        lambda: read_options(query),
        lambda: read_delete_options(None, query),
    ]
    for read in readers:
        try:
            read()
        except ApiFailure as failure:
            assert failure.code in {400, 410, 422, 504}
    store.close()


@given(
    st.sampled_from(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "x/y"]),
    st.binary(),
)
def test_any_body_is_read_or_refused(media: str, data: bytes) -> None:
    try:
        negotiation.decode(media, data)
    except ApiFailure as failure:
        assert failure.code in {400, 415}


def test_yaml_words_stay_texts() -> None:
    data = b"{a: on, b: yes, c: 2026-01-01, d: true, e: 1}"
    assert negotiation.read_yaml(data).value == {"a": "on", "b": "yes", "c": "2026-01-01", "d": True, "e": 1}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", ""),
        ("application/vnd.kubernetes.protobuf,application/json", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table"),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", ""),
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "APIGroupDiscoveryList"),
    ],
)
def test_accepted_forms(accept: str, form: str) -> None:
    assert negotiation.wanted(accept).form == form


def test_what_cannot_be_written_is_406(tmp_path: Path) -> None:
    with pytest.raises(ApiFailure) as caught:
        negotiation.wanted("application/vnd.kubernetes.protobuf")
    assert caught.value.code == 406
