"""Tells the replica that writes status how far the nodes of the others are, by one ConfigMap with a key for each.

1. A replica writes its key while another one leads, when what it has to say changed, and at most once in `SPACING`.
   The leader says nothing, so where there is one replica nothing is written.
2. A report counts as long as its replica's pod is ready. The leader removes keys whose pod is gone.
3. Beside it a key says which routes its proxies have refused.
4. A replica whose pod the API server does not show (it runs outside of the cluster) says nothing: its nodes count as
   not connected.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import msgspec

from ambit.control.answers import Answer, History, Report, decode, encode, report_of, with_routes
from ambit.control.discovery import Discovery
from ambit.control.leader import Leadership
from ambit.control.mesh import MeshFeed
from ambit.control.settings import Settings
from ambit.control.statuses.status import POLICIES
from ambit.core.errors import AmbitError
from ambit.core.finding import ObjectRef
from ambit.core.names import ACKNOWLEDGEMENTS_CONFIGMAP
from ambit.daemon.logs import event
from ambit.ingest.mesh import Change
from ambit.kube.client import Client, Object, Patch
from ambit.kube.errors import NotFound
from ambit.kube.informer import Informer
from ambit.kube.resource import CONFIG_MAPS
from ambit.objects.kube import Pod
from ambit.objects.meta import ObjectMeta

log = logging.getLogger("ambit.control.reporter")

SETTLE = 0.05
"""Seconds after an answer of a node until it is told: others answer the same change at the same time."""
QUIET, SPACING = 0.25, 1.0
"""Seconds after a look that found nothing to tell, and after a write."""
TICK = 5.0
"""Seconds between looks when nothing happens: who leads may have changed."""


class Stored(msgspec.Struct, frozen=True):
    """The ConfigMap, as far as we read it."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None


class Reporter:
    """One replica's. `leadership` is None until this replica campaigns; `changed` is told when others said something
    new, or are gone. `refused` are the routes that proxies of this one refused; `routes_changed` is told of those of
    which others say something else now, by the text of their objects."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        discovery: Discovery,
        feed: MeshFeed,
        leadership: Callable[[], Leadership | None],
        changed: Callable[[], None],
        refused: Callable[[], Mapping[ObjectRef, str]] = dict,
        routes_changed: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        self._refused = refused
        self._routes_changed = routes_changed
        self._routes: dict[str, str] = {}
        self._client = client
        self._namespace = settings.system_namespace
        self._instance = settings.instance
        self._discovery = discovery
        self._feed = feed
        self._pods: Mapping[tuple[str, str], Pod] = feed.informers["pods"].items
        self._leadership = leadership
        self._changed = changed
        self._history = History()
        self._owed = False
        """Policies changed while their copy was incomplete: which versions were compiled is still to be noted."""
        self._reports: dict[str, tuple[str, Report]] = {}
        """By replica: the text, and what it says."""
        self._wake = asyncio.Event()
        self.informer = Informer(
            client,
            CONFIG_MAPS,
            msgspec.json.Decoder(Stored).decode,
            namespace=self._namespace,
            field_selector=f"metadata.name={ACKNOWLEDGEMENTS_CONFIGMAP}",
        )
        self.informer.subscribe(self._told)

    def wake(self) -> None:
        """There may be something new to say."""
        self._wake.set()

    def compiled(self, changes: Iterable[Change]) -> None:
        """A batch was compiled and published."""
        if any(change.resource in POLICIES for change in changes):
            self._owed = True
            if self._feed.has_compiled(POLICIES):
                self._note()
            self.wake()

    def pod_changed(self, kind: str, old: Pod | None, new: Pod | None) -> None:
        """Subscriber of the pod informer: a replica may be gone."""
        pod = new or old
        if (
            pod is not None
            and pod.metadata.name in self._reports
            and pod.metadata.namespace == self._namespace
        ):
            self._look()
            self.wake()

    def refused_route(self, origin: ObjectRef) -> str | None:
        """Why proxies of another replica have refused a route, if they have."""
        return self._routes.get(str(origin))

    def answers(self, kind: str, version: int, names: Collection[str]) -> Iterator[Answer]:
        """What the nodes of the other replicas say of the policies with these names, which were compiled from an
        object of that kind and resource version."""
        for replica, (_, report) in self._reports.items():
            if replica != self._instance and self._is_ready(replica):
                yield from report.answers(kind, version, names)

    async def run(self) -> None:
        """Tell until cancelled. The `informer` must be run beside this."""
        await self.informer.wait_synced()
        while True:
            try:
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(SETTLE)
            self._wake.clear()
            change = self._due()
            if change:
                try:
                    await self._write(change)
                except AmbitError as problem:
                    event(log, logging.WARNING, "what nodes acknowledged cannot be told", reason=problem)
                    self.wake()
            await asyncio.sleep(SPACING if change else QUIET)

    def _due(self) -> dict[str, str | None]:
        """Keys that are to be written, or to be removed (None)."""
        leadership = self._leadership()
        held = self._held()
        own = held.get(self._instance, "")
        if leadership is not None and leadership.leading:
            gone = {key for key in held if (self._namespace, key) not in self._pods}
            return dict.fromkeys(gone | ({self._instance} if own else set()))
        if (
            leadership is None
            or not leadership.following
            or (self._namespace, self._instance) not in self._pods
        ):
            return {}
        if self._owed and self._feed.has_compiled(POLICIES):
            self._note()
        report = report_of(self._discovery.standings(), self._history)
        said = encode(with_routes(report, self._refused()))
        return {self._instance: said or None} if said != own else {}

    def _note(self) -> None:
        """Everything up to the versions of the copies is compiled."""
        versions = {kind: self._feed.informers[name].complete_at for name, kind in POLICIES.items()}
        if all(each.isdecimal() for each in versions.values()):
            numbers = {kind: int(version) for kind, version in versions.items()}
            self._history.add(numbers, self._discovery.revisions())
            self._owed = False

    def _is_ready(self, replica: str) -> bool:
        pod = self._pods.get((self._namespace, replica))
        return pod is not None and pod.ready

    def _held(self) -> dict[str, str]:
        found = self.informer.items.get((self._namespace, ACKNOWLEDGEMENTS_CONFIGMAP))
        return (found.data or {}) if found is not None else {}

    def _told(self, kind: str, old: object, new: object) -> None:
        """Subscriber of the ConfigMap."""
        former = self._reports
        self._reports = {}
        for replica, text in self._held().items():
            known = former.get(replica)
            self._reports[replica] = known if known is not None and known[0] == text else (text, decode(text))
        self._look()
        self.wake()

    def _look(self) -> None:
        former, self._routes = self._routes, {}
        for replica, (_, report) in sorted(self._reports.items()):
            if replica != self._instance and self._is_ready(replica):
                self._routes |= report.routes
        changed = {
            each for each in former.keys() | self._routes.keys() if former.get(each) != self._routes.get(each)
        }
        if changed:
            self._routes_changed(changed)
        self._changed()

    async def _write(self, data: Mapping[str, str | None]) -> None:
        """Raises ApiError, Unreachable."""
        try:
            await self._client.patch(
                CONFIG_MAPS, ACKNOWLEDGEMENTS_CONFIGMAP, {"data": data}, self._namespace, kind=Patch.MERGE
            )
        except NotFound:
            value: Object = {
                "metadata": {"name": ACKNOWLEDGEMENTS_CONFIGMAP, "namespace": self._namespace},
                "data": {key: text for key, text in data.items() if text is not None},
            }
            await self._client.create(CONFIG_MAPS, value, self._namespace)
