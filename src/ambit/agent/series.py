"""Metrics counted by label sets, and what both ends of a record are called in them.

Labels are Istio's (ztunnel: `src/proxy/metrics.rs`). A missing value is `unknown`.
"""

from collections.abc import Iterable, Iterator
from operator import add

from ambit.agent.record import End
from ambit.model.metrics import MetricsNote, Override, mark

UNKNOWN = "unknown"
_END_LABELS = (
    "workload",
    "canonical_service",
    "canonical_revision",
    "workload_namespace",
    "principal",
    "app",
    "version",
    "cluster",
    "region",
    "zone",
)
ENDS = (
    *(f"source_{label}" for label in _END_LABELS),
    *(f"destination_{label}" for label in _END_LABELS),
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
)
"""Labels about who spoke with whom."""
MAX_SERIES = 10_000
"""Of one proxy: more label sets than this are counted as `unknown`: a peer must not be able to fill our memory."""

AS_COUNTED, _UNCHANGED = MetricsNote(), Override()
OTHER = "other"
"""A value of an expression where there are too many."""
MOST_VALUES = 100
"""Different ones of an expression that is a label: they can be what clients say."""

Labels = tuple[str, ...]
Values = tuple[tuple[str, str], ...]
"""Of expressions, by their names (`ambit.model.metrics.mark`); what is not known is not there."""


class Series:
    """Numbers by label set: as many as `width` of each. Those of requests may have values of expressions besides."""

    def __init__(self, names: Labels, width: int, most: int) -> None:
        self._names = names
        self._width = width
        self._most = most
        self._series: dict[tuple[Labels, Values], list[int]] = {}
        self._known: dict[str, set[str]] = {}
        """Values of expressions, by their names."""
        self._valued = 0
        """Label sets with values, at most half of all: the others must have room."""

    def __len__(self) -> int:
        return len(self._series)

    def of(self, labels: Labels, values: Values = ()) -> list[int]:
        """The numbers of a label set, for adding to. The first label stays when there are too many."""
        found = self._series.get((labels, values))
        return found if found is not None else self._new(labels, values)

    def _new(self, labels: Labels, values: Values) -> list[int]:
        values = tuple((name, self._bounded(name, value)) for name, value in values)
        if values and self._valued >= self._most // 2 and (labels, values) not in self._series:
            values = ()
        if len(self._series) >= self._most and (labels, values) not in self._series:
            labels, values = (labels[0], *(UNKNOWN for _ in labels[1:])), ()
        found = self._series.get((labels, values))
        if found is None:
            found = self._series[labels, values] = [0] * self._width
            self._valued += bool(values)
        return found

    def _bounded(self, name: str, value: str) -> str:
        known = self._known.setdefault(name, set())
        if len(known) < MOST_VALUES:
            known.add(value)
        return value if value in known else OTHER

    def sets(self) -> Iterator[tuple[dict[str, str], dict[str, str], list[int]]]:
        """Label sets and values of expressions, with their numbers."""
        for (labels, values), numbers in self._series.items():
            yield dict(zip(self._names, labels, strict=True)), dict(values), numbers

    def shown(self, metric: str, note: MetricsNote = AS_COUNTED) -> Iterable[tuple[str, list[int]]]:
        """Label sets as Prometheus writes them between braces, with their numbers, as `note` wants them of a metric:
        those that differ in what is left out are one."""
        if not self._valued and not note.changes(metric):
            return (
                (written(zip(self._names, labels, strict=True)), numbers)
                for (labels, _), numbers in self._series.items()
            )
        return self._merged(metric, note).items()

    def _merged(self, metric: str, note: MetricsNote) -> dict[str, list[int]]:
        merged: dict[str, list[int]] = {}
        for labels, values, numbers in self.sets():
            service = f"{labels['destination_service_namespace']}/{labels['destination_service']}"
            override = note.of(service).get(metric, _UNCHANGED)
            if override.disabled:
                continue
            for name, value in override.labels:
                if value is None:
                    labels.pop(name, None)
                else:
                    labels[name] = value
            for name, expression in override.expressions:
                labels[name] = values.get(mark(expression), UNKNOWN)
            text = written(labels.items())
            before = merged.get(text)
            merged[text] = numbers if before is None else list(map(add, before, numbers))
        return merged


def written(labels: Iterable[tuple[str, str]]) -> str:
    """As Prometheus writes them between braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def ends(source: End, destination: End) -> Labels:
    """Values in the order of ENDS."""
    namespace, _, host = destination.service.partition("/")
    return (
        *_end(source),
        *_end(destination),
        host or UNKNOWN,
        namespace or UNKNOWN,
        host.partition(".")[0] or UNKNOWN,
    )


def _end(end: End) -> Labels:
    return (
        end.workload_name or end.workload or UNKNOWN,
        end.canonical_service or UNKNOWN,
        end.canonical_revision or UNKNOWN,
        end.namespace or UNKNOWN,
        end.identity or UNKNOWN,
        end.canonical_service or UNKNOWN,
        end.canonical_revision or UNKNOWN,
        end.cluster or UNKNOWN,
        end.region or UNKNOWN,
        end.zone or UNKNOWN,
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
