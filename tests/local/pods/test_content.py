from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ambit.local.pods import content
from ambit.local.pods.content import File, Material, TokenKey, files_of, mounts_of, volumes_of
from ambit.local.pods.environment import MissingReference
from ambit.local.pods.volumes import write_atomically

POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
    "spec": {"containers": [{"name": "main"}]},
}
MATERIAL = Material({"c": {"a": b"1", "b": b"2"}}, {"s": {"k": b"x"}}, {TokenKey("istio-ca", 43200): "jwt"})


def test_keys_and_modes() -> None:
    volume = {
        "name": "v",
        "configMap": {"name": "c", "items": [{"key": "a", "path": "d/a.txt", "mode": 0o400}]},
    }
    assert files_of(volume, POD, MATERIAL) == {"d/a.txt": File(b"1", 0o400)}
    assert files_of({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o440}}, POD, MATERIAL) == {
        "k": File(b"x", 0o440)
    }


def test_projection_joins_its_sources() -> None:
    sources = [
        {"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200, "path": "token"}},
        {"configMap": {"name": "c"}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    files = files_of({"name": "v", "projected": {"sources": sources}}, POD, MATERIAL)
    assert {path: file.body for path, file in files.items()} == {
        "token": b"jwt",
        "a": b"1",
        "b": b"2",
        "ns": b"shop",
    }


@pytest.mark.parametrize("reference", [{"name": "none"}, {"name": "c", "items": [{"key": "z", "path": "z"}]}])
def test_required_content_is_required(reference: dict[str, Any]) -> None:
    with pytest.raises(MissingReference):
        files_of({"name": "v", "configMap": reference}, POD, MATERIAL)
    assert files_of({"name": "v", "configMap": {**reference, "optional": True}}, POD, MATERIAL) == {}


def test_the_account_is_mounted_unless_opted_out_of_or_there() -> None:
    main = POD["spec"]["containers"][0]
    assert [mount["mountPath"] for mount in mounts_of(POD, main)] == [content.ACCOUNT_MOUNT]
    assert [volume["name"] for volume in volumes_of(POD)] == [content.ACCOUNT_VOLUME]
    without = {**POD, "spec": {**POD["spec"], "automountServiceAccountToken": False}}
    assert mounts_of(without, main) == []
    assert volumes_of(without) == []
    own = {"name": "own", "mountPath": content.ACCOUNT_MOUNT}
    assert mounts_of(POD, {"name": "main", "volumeMounts": [own]}) == [own]


_names = st.text("abc", min_size=1, max_size=3)
_files = st.dictionaries(_names, st.binary(max_size=8).map(lambda body: File(body, 0o644)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(st.lists(_files, min_size=1, max_size=4))
def test_a_volume_holds_exactly_the_last_written(tmp_path: Path, versions: list[dict[str, File]]) -> None:
    for files in versions:
        write_atomically(tmp_path, files)
        shown = {
            path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith("..")
        }
        assert shown == {path: file.body for path, file in files.items()}
        assert sum(path.is_dir() and not path.is_symlink() for path in tmp_path.iterdir()) == 1


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_files_stay_inside(tmp_path: Path, path: str) -> None:
    with pytest.raises(MissingReference):
        write_atomically(tmp_path / "v", {path: File(b"", 0o644)})
