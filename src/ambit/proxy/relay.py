"""What the control plane says this proxy's Envoy gets: taken as it comes, given on, answered when Envoy has answered.

Rules:
1. All types are wildcards: the control plane knows what the proxy needs, and sends nothing else.
2. What Envoy has acknowledged may still wait for what it names. It is in force, and acknowledged to the control plane,
   when nothing does any more: others are sent here on that account.
3. What Envoy refused is not held, so that a control plane that has been restarted sends it again, and is told why it is
   refused.
4. Envoy subscribes to tables and policies when it has the listeners that name them: it may refuse one that counted as
   acknowledged. Then the stream is opened anew, the control plane sends it again, and is told why it is refused.
5. Policies, clusters and endpoints that are gone stay with Envoy until the listeners that used them have drained:
   requests on connections that are kept would be answered with 500 or 503.
6. Of secrets only the trust counts, what a gateway shows its clients, and the notes about the authority, metrics and
   names, which are for the agent. The key of the proxy's own identity is made here, and nobody else gives this
   Envoy one.
7. What Envoy has taken is kept for the next agent of the pod, which begins with it (`restore`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import msgspec

from ambit.agent.channel import ControlPlane
from ambit.agent.control_stream import Answer, ControlStream
from ambit.agent.envoy_server import EnvoyServer
from ambit.agent.publication import Publication
from ambit.envoy import names
from ambit.model.metrics import MetricsNote
from ambit.model.server_names import NamesNote
from ambit.plan import authority
from ambit.plan.authority import AuthorityNote
from ambit.plan.l7 import server_names
from ambit.plan.telemetry import metrics
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET
from ambit.proxy.last_good import LastGood
from ambit.xds.client_session import ClientSession, Update
from ambit.xds.compact import Compactor
from ambit.xds.frames import Node, Resource

_log = logging.getLogger("ambit.relay")
TYPES = (SECRET, CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES)
"""In the order in which they are asked for."""
_WARMED = frozenset({CLUSTER, LISTENER, ROUTES})
"""What others are sent here for."""
_DRAINING = frozenset({CLUSTER, ENDPOINTS, EXTENSION})
_NOTES = frozenset({names.AUTHORITY, names.METRICS, names.NAMES})
"""Secrets that are for the agent."""
LINGER = 10.0
"""Seconds; twice as long as Envoy lets connections of a listener go on that is gone (`ambit.proxy.envoy`)."""


async def _at_once() -> None:
    """What was acknowledged is in force."""


class Notes(msgspec.Struct, frozen=True):
    """Callbacks for what the control plane says to the agent itself."""

    authority: Callable[[AuthorityNote], None] = lambda _: None
    metrics: Callable[[MetricsNote], None] = lambda _: None
    names: Callable[[NamesNote], None] = lambda _: None


class Relay:
    """Runs until cancelled. `complete` is set when each type was received once."""

    def __init__(
        self,
        control: ControlPlane,
        node: Node,
        server: EnvoyServer,
        kept: LastGood,
        notes: Notes = Notes(),  # noqa: B008 - immutable
        in_force: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        """`in_force` returns when Envoy uses what it has."""
        self._server = server
        self._last_good = kept
        self._notes = notes
        self._in_force = in_force
        self._held: dict[str, dict[str, str]] = {each: {} for each in TYPES}
        self.stream = ControlStream(
            control, ClientSession(TYPES, node, self._held.__getitem__), self._take, _log
        )
        self._accepted: dict[tuple[str, str], str] = {}
        """Versions that Envoy has not rejected when their update was settled, by type and name."""
        server.on_rejected = self._take_rejection
        self._told: set[str] = set()
        self._leaving: dict[tuple[str, str], asyncio.TimerHandle] = {}
        """What is gone but for Envoy, by type and name."""
        self._compactor = Compactor()
        self._refused: dict[tuple[str, str], tuple[str, str]] = {}
        """Version and Envoy's words, by type and name."""
        self.complete = asyncio.Event()

    def restore(self) -> bool:
        """Begins with what a former agent of this pod kept; false when that is not all that Envoy needs."""
        found = self._last_good.configuration(TYPES)
        if found is None:
            return False
        for type_url, resources in found.items():
            notes = self._note_told(resources, ()) if type_url == SECRET else []
            self._give(type_url, [each for each in resources if each not in notes], [])
            self._held[type_url].update({each.name: each.version for each in resources})
            self._note_accepted(type_url, resources)
        self._told.update(TYPES)
        self.complete.set()
        return True

    async def run(self) -> None:
        await self.stream.run()

    async def _take(self, update: Update) -> Callable[[], Awaitable[Answer]]:
        foreign = [each.name for each in update.resources if not _is_ours(update.type_url, each.name)]
        resources = [each for each in update.resources if _is_ours(update.type_url, each.name)]
        removed = [name for name in update.removed if name in self._held[update.type_url]]
        notes = self._note_told(resources, removed) if update.type_url == SECRET else []
        publication = self._give(
            update.type_url,
            [each for each in resources if each not in notes],
            [name for name in removed if update.type_url != SECRET or name not in _NOTES],
        )
        held = self._held[update.type_url]
        held.update({each.name: each.version for each in resources})
        for name in removed:
            del held[name]
            self._accepted.pop((update.type_url, name), None)
        self._told.add(update.type_url)
        if self._told.issuperset(TYPES):
            self.complete.set()
        return partial(self._settle, update, resources, foreign, publication)

    def _note_told(self, resources: Iterable[Resource], removed: Iterable[str]) -> list[Resource]:
        """Tells the agent what is noted for it; returns the notes."""
        notes = [each for each in resources if each.name in _NOTES]
        for each in notes:
            if each.name == names.AUTHORITY:
                self._notes.authority(authority.parse(each.body))
            elif each.name == names.NAMES:
                self._notes.names(server_names.parse(each.body))
            else:
                self._notes.metrics(metrics.parse(each.body))
        if names.METRICS in removed:
            self._notes.metrics(MetricsNote())
        if names.NAMES in removed:
            self._notes.names(NamesNote())
        return notes

    def _give(self, type_url: str, resources: list[Resource], removed: list[str]) -> Publication:
        """To Envoy, from which some of what is removed goes later."""
        later = removed if type_url in _DRAINING else []
        at_once = [] if later else removed
        publication = self._server.publish(
            ((type_url, self._kept(type_url, each)) for each in resources),
            ((type_url, name) for name in at_once),
        )
        for each in resources:
            self._stay(type_url, each.name)
        for name in later:
            self._leave(type_url, name)
        return publication

    def _kept(self, type_url: str, resource: Resource) -> Resource:
        """As it is kept for the next Envoy. Of keys nothing outlives them, so none is what others are like."""
        return resource if type_url == SECRET else self._compactor.compact(type_url, resource)

    async def _settle(
        self, update: Update, resources: list[Resource], foreign: list[str], publication: Publication
    ) -> Answer:
        type_url = update.type_url
        known = self._known_refusals(type_url, resources)
        error = await publication.settled() or "; ".join(known)
        self._note(type_url, resources, error)
        self._keep(type_url, resources, update.removed)
        self._note_accepted(type_url, resources)
        if not error and type_url in _WARMED:
            await self._in_force()
        if foreign:
            error = f"secrets that nobody asked for: {', '.join(foreign[:3])}"
        return Answer(error)

    def _note_accepted(self, type_url: str, resources: Iterable[Resource]) -> None:
        """Those that are held: Envoy has not rejected them so far."""
        held = self._held[type_url]
        current = [each for each in resources if held.get(each.name) == each.version]
        self._accepted.update(((type_url, each.name), each.version) for each in current)

    def _keep(self, type_url: str, resources: Iterable[Resource], removed: Iterable[str]) -> None:
        """Keeps what Envoy has taken, unless it was refused or something newer has come meanwhile. What Envoy has for a
        while longer is kept as long."""
        held = self._held[type_url]
        taken = [each for each in resources if held.get(each.name) == each.version]
        gone = [name for name in removed if name not in held and (type_url, name) not in self._leaving]
        self._last_good.keep(type_url, taken, gone)

    def _take_rejection(self, type_url: str, name: str, version: str, error: str) -> None:
        """Takes back the acknowledgement of a version that Envoy rejects later."""
        if self._accepted.get((type_url, name)) != version:
            return
        del self._accepted[type_url, name]
        self._refused[type_url, name] = (version, f"{name}: {error}")
        if self._held[type_url].get(name) == version:
            self._held[type_url][name] = ""
            self._last_good.keep(type_url, (), (name,))
            self.stream.open_anew()

    def _known_refusals(self, type_url: str, resources: Iterable[Resource]) -> list[str]:
        """Why Envoy has refused what comes again as it was: it is not asked twice."""
        found = ((each.version, self._refused.get((type_url, each.name))) for each in resources)
        return list(dict.fromkeys(known[1] for version, known in found if known and known[0] == version))

    def _note(self, type_url: str, resources: Iterable[Resource], error: str) -> None:
        """Those that the error names are refused, else all."""
        given = list(resources)
        named = [each for each in given if f"{each.name}: " in error] or (given if error else [])
        held = self._held[type_url]
        for each in given:
            self._refused.pop((type_url, each.name), None)
        for each in named:
            self._refused[type_url, each.name] = (each.version, error)
            if held.get(each.name) == each.version:
                held[each.name] = ""

    def _leave(self, type_url: str, name: str) -> None:
        self._stay(type_url, name)
        later = asyncio.get_running_loop().call_later(LINGER, self._gone, type_url, name)
        self._leaving[type_url, name] = later

    def _stay(self, type_url: str, name: str) -> None:
        if (timer := self._leaving.pop((type_url, name), None)) is not None:
            timer.cancel()

    def _gone(self, type_url: str, name: str) -> None:
        del self._leaving[type_url, name]
        self._server.publish((), [(type_url, name)])
        self._last_good.keep(type_url, (), [name])


def _is_ours(type_url: str, name: str) -> bool:
    return type_url != SECRET or name in {names.TRUST, *_NOTES} or name.startswith(names.SHOWN)
