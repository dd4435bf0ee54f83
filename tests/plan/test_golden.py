"""What Envoy gets, as text that a person can check; and that Envoy itself accepts every bit of it.

`UPDATE_GOLDEN=1 pytest tests/plan/test_golden.py` writes the files anew.
"""

import importlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import any_pb2, json_format

from ambit.plan import node_proxy
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, PlannedResource
from tests.plan import cases
from tests.plan.dataplane.agent import ENVOY

GOLDEN = Path(__file__).parent.parent / "golden" / "node_proxy"
MOST_LINES = 160
MAPS = {"map", "filter_metadata", "typed_extension_protocol_options", "value"}
# Types that only this text form needs: at run time nothing looks inside an Any.
for _module in ("cluster.v3.cluster_pb2", "core.v3.extension_pb2"):
    importlib.import_module(f"envoy.config.{_module}")


def as_text(case: str, resource: PlannedResource) -> str:
    packed = any_pb2.Any.FromString(resource.body)
    content = json_format.MessageToDict(packed, preserving_proto_field_name=True)
    content.pop("@type", None)
    match case.partition("_")[0]:
        case "in" | "plain":
            # The same as in the outbound listener's file.
            for repeated in ("access_log", "socket_options"):
                _drop(content, repeated)
        case "out":
            del content["filter_chains"][3:]
            for further in content["filter_chains"][1:]:
                _drop(further, "access_log")
            del content["filter_chain_matcher"]
        case "tunnelled":
            (content,) = content["filter_chains"][3:]
            _drop(content, "access_log")
        case "matcher":
            content = content["filter_chain_matcher"]
            if case == "matcher_tunnelled":  # The rest is as in the others.
                content = content["matcher_list"]["matchers"][0]["on_match"]
    return yaml.safe_dump(_sorted_maps(json.loads(json.dumps(content))), sort_keys=False, width=110)


@pytest.mark.parametrize("case", sorted(cases.resources()))
def test_golden(case: str) -> None:
    resource = cases.resources()[case]
    text = as_text(case, resource)
    path = GOLDEN / f"{case}.yaml"
    if "UPDATE_GOLDEN" in os.environ:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    assert text.count("\n") <= MOST_LINES


def test_no_golden_is_unused() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(cases.resources())


@pytest.mark.envoy
def test_envoy_accepts_everything(tmp_path: Path) -> None:
    """All resources as static ones in one bootstrap, without namespaces, which would have to exist. Tunnels are
    left to the data path tests: Envoy 1.40 crashes when it *validates* an on-demand certificate over ADS."""
    bootstrap = bootstrap_pb2.Bootstrap.FromString(
        node_proxy.bootstrap(
            cases.SETTINGS, xds_socket="/x.sock", logs_socket="/l.sock", admin_socket=f"{tmp_path}/admin.sock"
        )
    )
    resources = {each.name: each for each in cases.resources().values()}
    for resource in resources.values():
        packed = any_pb2.Any.FromString(resource.body)
        if resource.name.startswith(("hbone|", "tun|")):
            continue
        if resource.type_url == CLUSTER:
            bootstrap.static_resources.clusters.add().MergeFromString(packed.value)
        elif resource.type_url == LISTENER:
            listener = bootstrap.static_resources.listeners.add()
            listener.MergeFromString(packed.value)
            _move(listener, 20000 + len(bootstrap.static_resources.listeners))
        else:
            assert resource.type_url == EXTENSION
    content = json_format.MessageToDict(bootstrap, preserving_proto_field_name=True)
    _drop(content, "network_namespace_filepath")
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(content))
    done = subprocess.run(
        [str(ENVOY), "--mode", "validate", "-c", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert " OK" in done.stdout + done.stderr


def _sorted_maps(content: object, *, inside: bool = False) -> object:
    """Message fields stay in their order, maps are sorted: protobuf gives them in any order."""
    if isinstance(content, list):
        return [_sorted_maps(each, inside=inside) for each in content]
    if not isinstance(content, dict):
        return content
    keys = sorted(content) if inside else list(content)
    return {key: _sorted_maps(content[key], inside=inside or key in MAPS) for key in keys}


def _move(listener: listener_pb2.Listener, port: int) -> None:
    """To a port of its own: listeners of several pods differ only in their namespace."""
    if listener.HasField("address"):
        listener.address.socket_address.port_value = port
        for each in listener.additional_addresses:
            each.address.socket_address.port_value = port


def _drop(content: object, key: str) -> None:
    if isinstance(content, dict):
        content.pop(key, None)
        for each in content.values():
            _drop(each, key)
    elif isinstance(content, list):
        for each in content:
            _drop(each, key)
