"""Image archives are what the OCI layout says, and the same bytes each time."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from tests.kubernetes.cluster.images import pack, pack_files


def test_an_archive_holds_one_image_whose_digests_are_right(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF and so on")
    with tarfile.open(pack(tmp_path / "image.tar", "localhost/program:1", program)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    (entry,) = json.loads(contents["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/program:1"}

    def blob(descriptor: dict[str, str | int]) -> bytes:
        data = contents[f"blobs/{str(descriptor['digest']).replace(':', '/')}"]
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
        assert descriptor["size"] == len(data)
        return data

    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    layer = gzip.decompress(blob(manifest["layers"][0]))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["Entrypoint"] == ["/program"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tree:
        (member,) = tree.getmembers()
        assert (member.name, member.mode, member.uid, member.mtime) == ("program", 0o755, 0, 0)


def test_an_image_may_have_several_names(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"code")
    names = ["localhost/program:1", "localhost/program:2"]
    path = pack_files(tmp_path / "image.tar", names, {"/program": program}, "/program")
    with tarfile.open(path) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        entries = json.loads(index.read())["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == names
    assert len({entry["digest"] for entry in entries}) == 1


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"code")
    first = pack(tmp_path / "first.tar", "localhost/program:1", program).read_bytes()
    assert pack(tmp_path / "second.tar", "localhost/program:1", program).read_bytes() == first


def test_a_newer_program_is_packed_again(tmp_path: Path) -> None:
    program, archive = tmp_path / "program", tmp_path / "image.tar"
    program.write_bytes(b"old")
    old = pack(archive, "localhost/program:1", program).read_bytes()
    program.write_bytes(b"new")
    later = archive.stat().st_mtime_ns + 1_000_000_000
    os.utime(program, ns=(later, later))
    assert pack(archive, "localhost/program:1", program).read_bytes() != old
