import fcntl
import threading
from pathlib import Path

import pytest
from image.cache import Cache, content


def test_a_layer_is_made_once_for_the_same_inputs(tmp_path: Path) -> None:
    made: list[str] = []

    def fill(root: Path) -> None:
        made.append(root.name)
        (root / "file").write_text(f"{len(made)}")

    cache = Cache(tmp_path)
    first, tree = cache.layer("base", ["a"], fill)
    assert cache.layer("base", ["a"], fill) == (first, tree) and len(made) == 1
    assert Cache(tmp_path).layer("base", ["a"], fill) == (first, tree) and len(made) == 1
    second, _ = cache.layer("base", ["b"], fill)
    assert len(made) == 2 and second.digest != first.digest
    assert not tree.exists() and not Path(first.path).exists(), "the older one is gone"
    cache.forget()
    cache.layer("base", ["b"], fill)
    assert len(made) == 3


def test_a_layer_that_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    def fail(root: Path) -> None:
        (root / "half").touch()
        raise OSError("full")

    cache = Cache(tmp_path)
    with pytest.raises(OSError, match="full"):
        cache.layer("base", ["a"], fail)
    _, tree = cache.layer("base", ["a"], lambda root: (root / "whole").touch())
    assert [path.name for path in tree.iterdir()] == ["whole"]


def test_layers_do_not_take_each_others_place(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    _, tree = cache.layer("base", ["a"], lambda root: (root / "file").touch())
    cache.layer("ambit", ["a"], lambda root: (root / "file").touch())
    assert tree.exists()


def test_content_follows_names_bytes_and_modes_but_not_byte_code(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "module.py").write_text("one")
    seen = [content(folder)]
    (folder / "__pycache__/module.pyc").write_text("code")
    assert content(folder) == seen[0]
    (folder / "module.py").write_text("two")
    seen.append(content(folder))
    (folder / "module.py").chmod(0o755)
    seen.append(content(folder))
    (folder / "module.py").rename(folder / "other.py")
    seen.append(content(folder))
    assert len(set(seen)) == 4


def test_a_second_build_waits_for_the_first(tmp_path: Path) -> None:
    first, second, entered = Cache(tmp_path), Cache(tmp_path), threading.Event()

    def build() -> None:
        with second.held():
            entered.set()

    with first.held():
        other = threading.Thread(target=build)
        other.start()
        with (tmp_path / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not entered.is_set()
    other.join(10)
    assert entered.is_set()
