"""What Envoy gets, as text that a person can check; and that Envoy itself accepts every bit of it.

`UPDATE_GOLDEN=1 pytest tests/plan/test_golden.py` writes the files anew.
"""

import os
from pathlib import Path

import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import any_pb2

from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, ROUTES, PlannedResource
from tests.plan import cases, read_pod
from tests.plan.as_text import accepted_by_envoy, content_of, drop, text_of

GOLDEN = Path(__file__).parent.parent / "golden" / "node_proxy"
MOST_LINES = 170


def as_text(case: str, resource: PlannedResource) -> str:
    content = content_of(resource)
    match case.partition("_")[0]:
        case "in" | "plain":
            # The same as in the outbound listener's file.
            for repeated in ("access_log", "socket_options"):
                drop(content, repeated)
        case "out":
            del content["filter_chains"][3:]
            for further in content["filter_chains"][1:]:
                drop(further, "access_log")
            del content["filter_chain_matcher"]
        case "tunnelled":
            (content,) = content["filter_chains"][3:]
            drop(content, "access_log")
        case "read" if case.endswith("listener"):
            # The same as of other pods, and of waypoints.
            for repeated in (
                "access_log",
                "socket_options",
                "early_header_mutation_extensions",
                "local_reply_config",
            ):
                drop(content, repeated)
        case "req" if case == "req_listener":
            # The same as of waypoints.
            for repeated in ("access_log", "early_header_mutation_extensions", "local_reply_config"):
                drop(content, repeated)
        case "req" if case == "req_logged":
            # The rest is as in the one before, and the first log as of waypoints.
            (*_, manager) = content["filter_chains"][0]["filters"]
            content = {"access_log": manager["typed_config"]["access_log"][1:]}
        case "req" if case == "req_cluster_secured":
            # The same as for other backends, and as to other servers that are spoken to with TLS.
            for repeated in ("circuit_breakers", "load_assignment", "transport_socket_matches"):
                drop(content, repeated)
        case "matcher":
            content = content["filter_chain_matcher"]
            if case == "matcher_tunnelled":  # The rest is as in the others.
                content = content["matcher_list"]["matchers"][0]["on_match"]
    return text_of(content)


RESOURCES = {**cases.resources(), **dict(read_pod.resources())}


@pytest.mark.parametrize("case", sorted(RESOURCES))
def test_golden(case: str) -> None:
    resource = RESOURCES[case]
    text = as_text(case, resource)
    path = GOLDEN / f"{case}.yaml"
    if "UPDATE_GOLDEN" in os.environ:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    assert text.count("\n") <= MOST_LINES


def test_no_golden_is_unused() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(RESOURCES)


@pytest.mark.envoy
def test_envoy_accepts_everything(tmp_path: Path) -> None:
    """All resources as static ones in one bootstrap, without namespaces, which would have to exist. Tunnels and tables
    are left to the data path tests: Envoy 1.40 crashes when it *validates* an on-demand certificate over ADS."""
    bootstrap = bootstrap_pb2.Bootstrap.FromString(
        node_proxy.bootstrap(
            cases.SETTINGS, xds_socket="/x.sock", logs_socket="/l.sock", admin_socket=f"{tmp_path}/admin.sock"
        )
    )
    resources = {(each.type_url, each.name): each for each in RESOURCES.values()}
    for resource in resources.values():
        packed = any_pb2.Any.FromString(resource.body)
        if resource.name.startswith(("hbone|", "tun|", "net|")) or resource.type_url == ROUTES:
            continue
        if resource.type_url == CLUSTER:
            bootstrap.static_resources.clusters.add().MergeFromString(packed.value)
        elif resource.type_url == LISTENER:
            listener = bootstrap.static_resources.listeners.add()
            listener.MergeFromString(packed.value)
            _move(listener, 20000 + len(bootstrap.static_resources.listeners))
        else:
            assert resource.type_url == EXTENSION
    accepted_by_envoy(bootstrap, tmp_path)


def _move(listener: listener_pb2.Listener, port: int) -> None:
    """To a port of its own: listeners of several pods differ only in their namespace."""
    if listener.HasField("address"):
        listener.address.socket_address.port_value = port
        for each in listener.additional_addresses:
            each.address.socket_address.port_value = port
