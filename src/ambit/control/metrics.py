"""Counters of this process in Prometheus' text form."""

from collections.abc import Iterable

Labels = tuple[tuple[str, str], ...]


class Counters:
    """Counters by name and labels. `help` texts are given once, where the counter is declared."""

    def __init__(self) -> None:
        self._help: dict[str, str] = {}
        self._values: dict[str, dict[Labels, float]] = {}

    def declare(self, name: str, text: str) -> None:
        self._help[name] = text
        self._values.setdefault(name, {})

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        values = self._values[name]
        key = tuple(sorted(labels.items()))
        values[key] = values.get(key, 0) + by

    def value(self, name: str, **labels: str) -> float:
        return self._values[name].get(tuple(sorted(labels.items())), 0)

    def render(self) -> str:
        lines: list[str] = []
        for name, text in self._help.items():
            lines += family(name, "counter", text, self._values[name].items())
        return "\n".join([*lines, ""])


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> list[str]:
    """The lines of one metric."""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        shown = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
        lines.append(f"{name}{{{shown}}} {value:.15g}" if shown else f"{name} {value:.15g}")
    return lines


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
