"""Whatever a client sends, the answer is a Status of the client's fault, never an internal error."""

import asyncio
import copy
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ambit.local.apiserver.failures import ApiFailure
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.apiserver.writes import WriteOptions
from tests.local.apiserver.test_objects import deployment

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.sampled_from(["", "a", "TCP", "a b"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)

POD_SPEC = {
    "containers": [
        {
            "name": "c",
            "image": "i",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/x"}],
            "readinessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "1"}},
        }
    ],
    "volumes": [{"name": "v", "configMap": {"name": "m"}}],
}
GATEWAY = {"gatewayClassName": "a", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}
SAMPLES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("", "v1", "pods", {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": POD_SPEC}),
    ("apps", "v1", "deployments", deployment("web")),
    (
        "",
        "v1",
        "services",
        {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}},
    ),
    ("", "v1", "secrets", {"metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": "c"}}),
    ("gateway.networking.k8s.io", "v1", "gateways", {"metadata": {"name": "g"}, "spec": GATEWAY}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, str, str, Any]:
    group, version, plural, sample = draw(st.sampled_from(SAMPLES))
    body = copy.deepcopy(sample)
    path = draw(st.sampled_from(places(body)))
    target: Any = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = draw(JSON)
    return group, version, plural, body


def test_no_body_breaks_the_server(tmp_path: Path) -> None:
    api = ApiServer(ApiSettings(tmp_path / "pki"), None)

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(broken())
    def check(case: tuple[str, str, str, Any]) -> None:
        group, version, plural, body = case
        resource = api.registry.find(group, version, plural)
        assert resource is not None
        try:
            api.writer.create(resource, "default", body, WriteOptions(dry_run=True))
        except ApiFailure as failure:
            assert failure.code in {400, 422}, failure

    check()
    asyncio.run(api.stop())
