"""Requests that are read on this node, as Envoy tells of them: counted, and kept for their records."""

from collections.abc import Callable, Iterator

import msgspec

from ambit.agent import request_metrics
from ambit.agent.lanes import Lanes
from ambit.agent.record import End, Flow
from ambit.agent.request_entry import read, requests
from ambit.agent.request_record import KeptRequest, kept
from ambit.agent.series import Labels
from ambit.model.metrics import MetricsNote
from ambit.model.view import MeshView
from ambit.node.flows.requests import flow_of
from ambit.plan.telemetry.metrics import note_of
from ambit.plan.values import LocalPods, NodeSettings

_NOBODY = End("")


class _Lane(msgspec.Struct):
    """What requests have in common that differ in numbers only, and where they are counted."""

    flow: Flow
    labels: Labels
    numbers: list[int]


class SeenRequests:
    """One node's."""

    def __init__(self, view: MeshView, pods: Callable[[], LocalPods], settings: NodeSettings) -> None:
        self._view = view
        self._pods = pods
        self._settings = settings
        self._series = request_metrics.series()
        self._lanes = Lanes(self._lane)

    def forget(self) -> None:
        """What is known about the mesh has changed: lanes are worked out again."""
        self._lanes.clear()

    def take(self, message: bytes) -> Iterator[KeptRequest]:
        """One message of Envoy's."""
        for entry in requests(message):
            lane = self._lanes[entry.about]
            if lane is not None:
                request = kept(lane.flow, entry)
                numbers = self._series.of(lane.labels, entry.values) if entry.values else lane.numbers
                request_metrics.count(numbers, entry, request.milliseconds)
                yield request

    def render(self) -> Iterator[str]:
        """Prometheus text lines."""
        for part in request_metrics.render(self._series, self._note()):
            yield part.rstrip("\n")

    def _note(self) -> MetricsNote:
        """What is said of the metrics of services that were called."""
        keys = {
            f"{labels['destination_service_namespace']}/{labels['destination_service']}"
            for labels, *_ in self._series.sets()
        }
        services = (self._view.service(key) for key in sorted(keys))
        return MetricsNote(
            services={
                each.key: note_of(each.telemetry.policies, each.telemetry.proxy, [each]).of(each.key)
                for each in services
                if each is not None and each.telemetry is not None
            }
        )

    def _lane(self, text: str) -> _Lane | None:
        about = read(text)
        flow = flow_of(about, self._view, self._pods(), self._settings) if about is not None else None
        if flow is None:
            return None
        labels = request_metrics.labels(flow, _NOBODY)
        return _Lane(flow, labels, self._series.of(labels))
