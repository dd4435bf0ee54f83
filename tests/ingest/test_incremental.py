"""The compiler as a whole keeps the engine's promises: any history ends where its last state alone would."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from tests.ingest import build
from tests.ingest.build import Given
from tests.ingest.gateway import build as gateway
from tests.ingest.test_mesh import change

LABELS = st.sampled_from([{"app": "web"}, {"app": "db"}, {"app": "web", "tier": "front"}])
NAMESPACES = st.sampled_from(["default", "istio-system"])
MODES = st.sampled_from(["STRICT", "PERMISSIVE", "UNSET", "nonsense"])
NAMES = st.sampled_from(["a", "b"])
SELECTORS = st.none() | LABELS

WAYPOINTS = st.sampled_from(["a", "none"])
GATEWAY_API: tuple[st.SearchStrategy[Given], ...] = (
    st.builds(
        gateway.waypoint, NAMES, namespace=NAMESPACES, takes=st.sampled_from(["", "all", "none", "nonsense"])
    ),
    st.builds(
        gateway.gateway_class,
        st.sampled_from(["ambit-waypoint", "other"]),
        st.sampled_from(["ambit.io/waypoint-controller", "example.com/other"]),
    ),
    st.builds(gateway.bound, st.builds(gateway.namespace, NAMESPACES), WAYPOINTS),
    st.builds(
        gateway.bound,
        st.builds(build.service, NAMES, LABELS, namespace=NAMESPACES),
        WAYPOINTS,
        st.sampled_from(["", "istio-system"]),
    ),
    st.builds(gateway.grant, NAMESPACES, NAMESPACES),
    *(
        st.builds(
            make,
            st.just({"backendRefs": [gateway.to("a"), gateway.to("b", namespace="istio-system")]}),
            name=NAMES,
            namespace=NAMESPACES,
            parents=st.sampled_from([(gateway.parent("a"),), (gateway.parent("b", namespace="default"),)]),
        )
        for make in (gateway.route, gateway.grpc_route)
    ),
)

OBJECTS: st.SearchStrategy[Given] = st.one_of(
    st.builds(
        build.pod,
        NAMES,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "", "broken"]),
        namespace=NAMESPACES,
        labels=LABELS,
        ready=st.booleans(),
        redirected=st.booleans(),
        node_name=st.sampled_from(["node1", "node2"]),
        ports=st.sampled_from([{}, {"http": 8000}]),
    ),
    st.builds(
        build.service, NAMES, st.none() | LABELS, namespace=NAMESPACES, target=st.sampled_from([8080, "http"])
    ),
    st.builds(
        build.endpoint_slice,
        NAMES,
        st.sampled_from(["10.9.0.1", "10.9.0.2"]),
        st.just(80),
        pod_name=st.sampled_from(["", "a"]),
    ),
    st.builds(build.node, st.sampled_from(["node1", "node2"]), st.sampled_from(["", "r"])),
    st.builds(
        build.authorization_policy,
        NAMES,
        namespace=NAMESPACES,
        selector=SELECTORS,
        rules=st.sampled_from([[], [{}], [{"to": [{"operation": {"ports": ["x"]}}]}]]),
    ),
    st.builds(
        build.peer,
        NAMES,
        namespace=NAMESPACES,
        selector=SELECTORS,
        mode=MODES,
        ports=st.sampled_from([None, {8080: "STRICT"}, {8080: "PERMISSIVE"}]),
        created=st.sampled_from(["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]),
    ),
    *GATEWAY_API,
)
MODEL = ("workloads", "services", "authorizations", "proxies", "routes", "statuses")
EVENTS = st.tuples(OBJECTS.map(change), st.integers(0, 3)).map(
    lambda pair: pair[0] if pair[1] else Change(pair[0].resource, pair[0].key)
)
HISTORIES = st.lists(st.lists(EVENTS, max_size=5), max_size=6)


def state(compiler: MeshCompiler) -> dict[str, Any]:
    return {
        "workloads": dict(compiler.workloads),
        "services": dict(compiler.services),
        "authorizations": dict(compiler.authorizations),
        "proxies": dict(compiler.proxies),
        "routes": dict(compiler.routes),
        "statuses": dict(compiler.statuses),
        # What could not be compiled keeps its former result, which a fresh start does not know.
        "findings": [each for each in compiler.findings if each.code != "AMB0001"],
    }


def without_faults(batch: list[Change]) -> list[Change]:
    return [
        each
        for each in batch
        if each.value is None or each.resource != "pods" or "broken" not in each.value.addresses
    ]


@given(HISTORIES)
@settings(max_examples=60, deadline=None)
def test_from_scratch_equals_incremental_and_deltas_tell_all(history: list[list[Change]]) -> None:
    incremental, fresh = MeshCompiler(MeshSettings()), MeshCompiler(MeshSettings())
    last: dict[tuple[str, str], Change] = {}
    copies: dict[str, dict[str, Any]] = {name: {} for name in MODEL}
    for batch in map(without_faults, history):
        delta = incremental.apply(batch)
        last |= {(each.resource, each.key): each for each in batch}
        for name, copy in copies.items():
            part = getattr(delta, name)
            for key in part.removals:
                del copy[key]
            copy.update(part.upserts)
    fresh.apply(last.values())
    assert state(incremental) == state(fresh)
    assert all(copies[name] == state(fresh)[name] for name in copies)
    named = {name for each in incremental.workloads.values() for name in each.policies}
    assert named <= set(incremental.authorizations), "no workload names a policy that does not exist"


@given(HISTORIES)
@settings(max_examples=30, deadline=None)
def test_nothing_remains_of_what_was_deleted_and_nothing_raises(history: list[list[Change]]) -> None:
    compiler = MeshCompiler(MeshSettings())
    for batch in history:
        compiler.apply(batch)
    seen = {(each.resource, each.key) for batch in history for each in batch}
    compiler.apply(Change(*each) for each in seen)
    assert state(compiler) == {name: {} for name in MODEL} | {"findings": []}
    assert not compiler.findings
    assert all(each.size == 0 for each in compiler.statistics())
