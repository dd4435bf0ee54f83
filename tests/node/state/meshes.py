"""Small random meshes whose keys collide often."""

import ipaddress

from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Scope
from ambit.model.service import Service, VirtualAddress, Visibility
from ambit.model.workload import NetworkMode, Port, TunnelProtocol, Workload
from ambit.node.state.mesh import MeshState
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, Value, to_resource, type_of

ADDRESSES = [ipaddress.ip_address(text) for text in ("10.1.0.1", "10.1.0.2", "fd00::1")]
KEYS = ["default/a.default.svc.cluster.local", "other/b.other.svc.cluster.local"]


def workload(uid: str, **fields: object) -> Workload:
    values: dict[str, object] = {
        "uid": uid,
        "name": uid.rpartition("/")[2],
        "namespace": "default",
        "identity": Identity("cluster.local", "default", "web"),
        "cluster_id": "Kubernetes",
    }
    return Workload(**(values | fields))  # type: ignore[arg-type]


workloads = st.builds(
    workload,
    st.sampled_from(
        ["c//Pod/default/x", "c//Pod/default/y", "c/networking.istio.io/WorkloadEntry/default/z"]
    ),
    namespace=st.sampled_from(["default", "other"]),
    identity=st.sampled_from([Identity("cluster.local", ns, "web") for ns in ("default", "other")]),
    addresses=st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=2).map(tuple),
    tunnel=st.sampled_from(TunnelProtocol),
    network_mode=st.sampled_from(NetworkMode),
    services=st.dictionaries(st.sampled_from(KEYS), st.just((Port(80, 8080),)), max_size=2),
    policies=st.lists(st.sampled_from(["default/p", "default/q"]), unique=True, max_size=2).map(tuple),
).filter(lambda made: made.identity.namespace == made.namespace)
services = st.builds(
    lambda key, addresses, canonical, visibility: Service(
        name=key.partition("/")[2].partition(".")[0],
        namespace=key.partition("/")[0],
        hostname=key.partition("/")[2],
        addresses=addresses,
        ports=(Port(80, 8080),),
        canonical=canonical,
        visibility=visibility,
    ),
    st.sampled_from(KEYS),
    st.lists(
        st.sampled_from(
            [VirtualAddress("", address) for address in ADDRESSES]
            + [
                VirtualAddress("", ipaddress.ip_address("10.1.0.0"), 16),
                VirtualAddress("", ipaddress.ip_address("10.0.0.0"), 8),
            ]
        ),
        unique=True,
        max_size=3,
    ).map(tuple),
    st.booleans(),
    st.sampled_from(Visibility),
)
policies = st.builds(
    Authorization,
    name=st.sampled_from(["p", "q"]),
    namespace=st.sampled_from(["default", "other"]),
    scope=st.sampled_from(Scope),
    action=st.sampled_from(Action),
)
values = st.one_of(workloads, services, policies)
steps = st.lists(st.tuples(st.lists(values, max_size=4), st.lists(values, max_size=2)), max_size=6)


def store(state: MeshState, put: list[Value], remove: list[Value] = []) -> frozenset[str]:  # noqa: B006
    """Applies both types as a subscription does; the keys that were touched."""
    touched: set[str] = set()
    for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
        resources = {value.key: to_resource(value) for value in put if type_of(value) == type_url}
        gone = {value.key for value in remove if type_of(value) == type_url} - resources.keys()
        stored = state.apply(type_url, resources.values(), gone)
        assert not stored.refused
        touched |= stored.touched
    return frozenset(touched)
