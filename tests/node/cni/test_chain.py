"""Which configuration is chained to, and what comes out."""

import json
import re
from typing import Any

import pytest

from ambit.core.errors import AmbitError
from ambit.node.cni.chain import FILE, PluginSettings, chained, primary

SETTINGS = PluginSettings("/run/ambit/node/cni.sock", ("kube-system", "ambit-system"))
BRIDGE = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "disableCheck": True,
    "plugins": [{"type": "bridge", "bridge": "cni0"}, {"type": "portmap"}],
}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def result(files: dict[str, bytes]) -> Any:
    found = primary(files)
    return None if found is None else json.loads(chained(found, SETTINGS))


def test_ours_comes_last_and_the_rest_stays() -> None:
    assert result({"10-pods.conflist": encoded(BRIDGE)}) == {
        **BRIDGE,
        "plugins": [
            *BRIDGE["plugins"],  # type: ignore[misc]
            {
                "type": "ambit",
                "socket": "/run/ambit/node/cni.sock",
                "systemNamespaces": ["kube-system", "ambit-system"],
            },
        ],
    }


def test_a_single_plugin_becomes_a_list() -> None:
    single = {"cniVersion": "0.3.1", "name": "pods", "type": "bridge", "ipam": {"type": "host-local"}}
    made = result({"10-pods.conf": encoded(single)})
    assert (made["cniVersion"], made["name"]) == ("0.3.1", "pods")
    assert made["plugins"][0] == single


def test_the_first_valid_one_that_is_not_ours_counts() -> None:
    files = {
        FILE: encoded({**BRIDGE, "name": "ours"}),
        "05-copy.conflist": encoded({"name": "copy", "plugins": [{"type": "bridge"}, {"type": "ambit"}]}),
        "06-broken.conflist": b"{",
        "07-empty.conflist": encoded({"name": "x", "plugins": []}),
        "08-nameless.conf": encoded({"type": "bridge"}),
        "09-list.json": b"[]",
        "09-typeless.json": encoded({"name": "x", "plugins": [{}]}),
        "10-pods.conflist": encoded(BRIDGE),
        "20-other.conflist": encoded({**BRIDGE, "name": "other"}),
        "00-notes.txt": encoded(BRIDGE),
        f".{FILE}.abc.new": encoded(BRIDGE),
    }
    assert result(files)["name"] == "pods"
    assert result({FILE: files[FILE]}) is None
    assert result({}) is None


@pytest.mark.parametrize("name", ["00-aaa.conflist", ".10-hidden.conflist"])
def test_one_that_sorts_before_ours_is_a_problem(name: str) -> None:
    with pytest.raises(AmbitError, match=f"{re.escape(name)} before") as problem:
        result({name: encoded(BRIDGE)})
    assert "rename" in problem.value.hint
