import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from image.oci import Image, Layer, pack, write_archive


def tree(root: Path, order: int = 1, time: int = 1) -> Path:
    root.mkdir(parents=True)
    for name in ("b", "a", "tmp")[::order]:
        (root / name).mkdir()
    for name, text in (("b/program", "run"), ("a/text", "words"))[::order]:
        (root / name).write_text(text)
    (root / "b/program").chmod(0o700 if order == 1 else 0o755)
    (root / "link").symlink_to("b/program")
    for path in root.rglob("*"):
        os.utime(path, (time, time), follow_symlinks=False)
    return root


def layer(folder: Path) -> Layer:
    return pack(tree(folder / "root"), folder / "layer.tar.gz")


def test_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    first = pack(tree(tmp_path / "one"), tmp_path / "one.tar.gz")
    second = pack(tree(tmp_path / "two", order=-1, time=99), tmp_path / "other.tar.gz")
    assert first.digest == second.digest and first.diff_id == second.diff_id


def test_a_layer_says_what_it_is(tmp_path: Path) -> None:
    made = layer(tmp_path)
    packed = Path(made.path).read_bytes()
    plain = gzip.decompress(packed)
    assert made.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}" and made.size == len(packed)
    assert made.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}" and made.unpacked == len(plain)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == ["a", "a/text", "b", "b/program", "link", "tmp"]
    assert {(each.uid, each.gid, each.mtime) for each in members.values()} == {(0, 0, 0)}
    assert members["link"].linkname == "b/program"
    assert [members[name].mode for name in ("a/text", "b/program", "b", "tmp")] == [
        0o644,
        0o755,
        0o755,
        0o1777,
    ]


def test_an_archive_is_an_image_layout(tmp_path: Path) -> None:
    made = layer(tmp_path)
    images = [
        Image(
            ("localhost/one:dev", "localhost/one:1"),
            (made,),
            ("one",),
            ("run",),
            {"A": "b"},
            {"title": "one"},
            user=1337,
        ),
        Image(("localhost/two:dev",), (made,)),
    ]
    digests = write_archive(images, tmp_path / "out.tar", "amd64")
    with tarfile.open(tmp_path / "out.tar") as tar:
        files = {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    blobs = {
        name.removeprefix("blobs/sha256/"): data for name, data in files.items() if name.startswith("blobs/")
    }
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    assert len(blobs) == 5, "one layer for both, a manifest and a configuration for each"
    manifests = {
        each["annotations"]["io.containerd.image.name"]: each
        for each in json.loads(files["index.json"])["manifests"]
    }
    assert manifests.keys() == {"localhost/one:dev", "localhost/one:1", "localhost/two:dev"}
    assert (
        manifests["localhost/one:1"]["digest"]
        == manifests["localhost/one:dev"]["digest"]
        == digests["localhost/one:dev"]
    )
    manifest = json.loads(blobs[digests["localhost/one:dev"].removeprefix("sha256:")])
    assert [each["digest"] for each in manifest["layers"]] == [made.digest]
    configuration = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert configuration["rootfs"]["diff_ids"] == [made.diff_id]
    assert configuration["config"]["Entrypoint"] == ["one"] and configuration["config"]["Cmd"] == ["run"]
    assert configuration["config"]["User"] == "1337:1337"
    assert "A=b" in configuration["config"]["Env"] and configuration["config"]["Labels"] == {"title": "one"}


def test_the_same_images_are_the_same_archive(tmp_path: Path) -> None:
    made = layer(tmp_path)
    for name in ("one.tar", "two.tar"):
        write_archive([Image(("localhost/one:dev",), (made,))], tmp_path / name, "amd64")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert {path.name for path in tmp_path.glob("*.tar*")} == {"one.tar", "two.tar", "layer.tar.gz"}
