"""Metrics counted by label sets, and what both ends of a record are called in them.

Labels are Istio's (ztunnel: `src/proxy/metrics.rs`). A missing value is `unknown`.
"""

from collections.abc import Iterable, Iterator

from ambit.agent.record import End

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

Labels = tuple[str, ...]


class Series:
    """Numbers by label set: as many as `width` of each."""

    def __init__(self, names: Labels, width: int, most: int) -> None:
        self._names = names
        self._width = width
        self._most = most
        self._series: dict[Labels, list[int]] = {}

    def __len__(self) -> int:
        return len(self._series)

    def of(self, labels: Labels) -> list[int]:
        """The numbers of a label set, for adding to. The first label stays when there are too many."""
        found = self._series.get(labels)
        if found is None:
            if len(self._series) >= self._most:
                labels = (labels[0], *(UNKNOWN for _ in labels[1:]))
            found = self._series.setdefault(labels, [0] * self._width)
        return found

    def items(self) -> Iterator[tuple[str, list[int]]]:
        """Label sets as Prometheus writes them between braces, with their numbers."""
        for labels, numbers in self._series.items():
            yield written(zip(self._names, labels, strict=True)), numbers

    def sets(self) -> Iterator[tuple[dict[str, str], list[int]]]:
        """Label sets, with their numbers."""
        for labels, numbers in self._series.items():
            yield dict(zip(self._names, labels, strict=True)), numbers


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
