import tomllib

from image.build import SOURCES
from image.trees import ROOT


def test_whatever_the_wheel_holds_makes_a_new_layer_when_it_changes() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    inside = [ROOT / path for path in (*wheel["packages"], *wheel["force-include"])]
    missed = [path for path in inside if not any(path.is_relative_to(source) for source in SOURCES)]
    assert missed == [] and all(source.exists() for source in SOURCES)
