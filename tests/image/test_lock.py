"""The image gets exactly the versions that are tested."""

import re
import tomllib

from image.trees import LOCK, ROOT


def pins(text: str) -> dict[str, str]:
    """Version by normalised name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_images_lock_is_a_part_of_the_lock() -> None:
    everything = pins((ROOT / "requirements.lock").read_text())
    inside = pins(LOCK.read_text())
    assert {name: everything.get(name) for name in inside} == inside, "type `./dev lock`"


def test_it_has_every_dependency_and_no_development_tool() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = pins("\n".join(project["project"]["dependencies"]))
    inside = pins(LOCK.read_text())
    assert wanted.items() <= inside.items(), "type `./dev lock`"
    assert not {"pytest", "mypy", "uv", "grpcio-tools"} & inside.keys()


def test_every_line_has_a_hash() -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK.read_text(), flags=re.MULTILINE)
    assert [block.split()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block] == []
