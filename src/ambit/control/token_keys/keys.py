"""Keys of tokens, as they are fetched now: by each replica for itself, again and again, the last good ones kept.

Level-based: what is wanted is what rules name. Whoever asks for `ready` waits until each source was tried once, so that
a control plane that starts takes no key away from proxies that have it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator

import msgspec

from ambit.control.metrics import Counters
from ambit.control.token_keys.fetch import MOST_AT_ONCE, Fetched, NotFetched
from ambit.control.token_keys.shares import Turns, shared_out
from ambit.core.finding import Finding, Level, ObjectRef
from ambit.daemon.logs import event
from ambit.graph.collection import Delta
from ambit.ingest.gateway.conditions import KEYS_FETCHED
from ambit.kube.workqueue import WorkQueue
from ambit.model.jwt import KeySource, TokenPolicy, sources_of, with_keys
from ambit.model.service import Service
from ambit.model.status import Condition, ObjectStatus, Status

log = logging.getLogger("ambit.control.keys")

REFRESH, REFRESH_LEAST = 20 * 60.0, 60.0
"""Seconds until keys are fetched again; a server may say that it should be earlier (`Cache-Control`)."""
RETRY_FIRST, RETRY_LAST = 1.0, 300.0
SPREAD = 0.2
"""So much earlier, at most: replicas and sources do not ask all at once."""
WAIT = 5.0
"""Seconds that proxies wait for the first attempts."""
MOST_SOURCES = 500
MOST_AT_ONCE_OF_A_NAMESPACE = 8
FETCHES = "ambit_token_key_fetches_total"


class KeyKeeper:
    """`fetch` raises NotFetched; `random` is between 0 and 1; `changed` is called with the sources
    whose `keys` are others, and `noted` with an object that has something else to say in its status."""

    def __init__(
        self,
        fetch: Callable[[KeySource], Awaitable[Fetched]],
        counters: Counters,
        random: Callable[[], float],
        changed: Callable[[Collection[KeySource]], None],
        noted: Callable[[ObjectRef], None],
    ) -> None:
        self._fetch = fetch
        self._counters = counters
        self._random = random
        self._changed = changed
        self._noted = noted
        self._policies: dict[str, TokenPolicy] = {}
        self._wanted: set[KeySource] = set()
        self._shares: dict[KeySource, str] = {}
        """Those that are fetched, and the namespaces that they count for."""
        self._turns = Turns(MOST_AT_ONCE_OF_A_NAMESPACE)
        self._tried: set[KeySource] = set()
        self._all_tried = asyncio.Event()
        self._all_tried.set()
        self._failures: dict[KeySource, int] = {}
        self._problems: dict[KeySource, str] = {}
        self.keys: dict[KeySource, str] = {}
        """The good ones."""
        self._queue: WorkQueue[KeySource] = WorkQueue("keys of tokens")
        counters.declare(FETCHES, "Attempts to fetch keys of tokens, by result.")

    def compiled(self, delta: Delta[TokenPolicy]) -> None:
        """Rules were compiled."""
        if not delta:
            return
        self._policies.update(delta.upserts)
        for key in delta.removals:
            self._policies.pop(key, None)
        by_namespace: defaultdict[str, set[KeySource]] = defaultdict(set)
        for policy in self._policies.values():
            by_namespace[policy.origin.namespace].update(_sources(policy))
        wanted: set[KeySource] = set().union(*by_namespace.values())
        shares = shared_out(by_namespace, MOST_SOURCES)
        for source in sorted((wanted - self._wanted) | (wanted & (shares.keys() ^ self._shares.keys()))):
            self._queue.add(source)
        for source in self._wanted - wanted:
            self._problems.pop(source, None)
            self._failures.pop(source, None)
            self._tried.discard(source)
        lost = [source for source in self.keys.keys() - shares.keys() if self.keys.pop(source)]
        self._wanted, self._shares = wanted, shares
        self._look()
        if lost:
            self._changed(lost)

    def look_again(self, namespaces: Collection[str]) -> None:
        """What objects of these namespaces may name has changed: sources that could not be fetched are tried at
        once."""
        for source in sorted(each for each in self._problems if each.namespace in namespaces):
            self._failures.pop(source, None)
            self._queue.add(source)

    def keyed(self, service: Service) -> Service:
        """With the keys by which nodes verify tokens for its pods."""
        rules = service.rules
        if rules is None or not sources_of(rules.tokens):
            return service
        tokens = with_keys(rules.tokens, self.keys)
        return msgspec.structs.replace(service, rules=msgspec.structs.replace(rules, tokens=tokens))

    async def ready(self) -> None:
        """Returns when every source was tried, or after WAIT."""
        try:
            async with asyncio.timeout(WAIT):
                await self._all_tried.wait()
        except TimeoutError:
            event(log, logging.WARNING, "proxies start before all keys were asked for")

    async def run(self) -> None:
        """Fetch until cancelled."""
        await self._queue.run(self._in_turn, workers=MOST_AT_ONCE)

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with sources now."""
        return [
            Finding(
                "AMB0235", Level.WARNING if source in self.keys else Level.ERROR, policy.origin, path, text
            )
            for policy in self._policies.values()
            for path, source in _paths(policy)
            if (text := self._problems.get(source))
        ]

    def amended(self, status: Status) -> Status:
        """With what is to be said of the keys of an object."""
        origin = status.version.origin
        policy = self._policies.get(f"{origin.namespace}/{origin.name}")
        if not isinstance(status, ObjectStatus) or policy is None or policy.origin != origin:
            return status
        sources = list(_sources(policy))
        if not sources:
            return status
        said = "; ".join(
            f"{path}: {self._problems[each]}" for path, each in _paths(policy) if each in self._problems
        )
        if all(each in self.keys for each in sources):
            condition = Condition(KEYS_FETCHED, "True", "Outdated" if said else "Fetched", said)
        elif said:
            condition = Condition(KEYS_FETCHED, "False", "NotFetched", f"{said}; no token is valid by it")
        else:
            condition = Condition(KEYS_FETCHED, "Unknown", "Pending", "")
        return msgspec.structs.replace(status, conditions=(*status.conditions, condition))

    async def _in_turn(self, source: KeySource) -> None:
        whose = self._shares.get(source, "")
        if not self._turns.begin(source, whose):
            return
        try:
            await self._renew(source)
        finally:
            following = self._turns.end(whose)
            if following is not None:
                self._queue.add(following)

    async def _renew(self, source: KeySource) -> None:
        if source not in self._wanted:
            return
        try:
            fetched = await self._ask(source)
        except NotFetched as problem:
            self._counters.count(FETCHES, result="failed")
            failures = self._failures.get(source, 0)
            self._failures[source] = failures + 1
            self._say(source, problem.message)
            self._again(source, min(RETRY_LAST, RETRY_FIRST * 2 ** min(failures, 16)))
            return
        self._counters.count(FETCHES, result="ok")
        self._failures.pop(source, None)
        if source in self._shares:
            before, self.keys[source] = self.keys.get(source), fetched.keys
            self._say(source, "")
            if before != fetched.keys:
                event(log, logging.INFO, "keys of tokens fetched", url=source.url)
                self._changed([source])
        lifetime = REFRESH if fetched.lifetime is None else fetched.lifetime
        self._again(source, max(REFRESH_LEAST, min(REFRESH, lifetime)))

    async def _ask(self, source: KeySource) -> Fetched:
        if source not in self._shares:
            raise NotFetched(f"keys of more than {MOST_SOURCES} places are not fetched")
        return await self._fetch(source)

    def _again(self, source: KeySource, seconds: float) -> None:
        self._queue.add_after(source, seconds * (1 - SPREAD * self._random()))

    def _say(self, source: KeySource, problem: str) -> None:
        """Notes a result, and whose status it concerns."""
        if source not in self._wanted:
            return
        is_new = source not in self._tried or self._problems.get(source, "") != problem
        self._tried.add(source)
        if problem:
            self._problems[source] = problem
        else:
            self._problems.pop(source, None)
        self._look()
        if not is_new:
            return
        if problem:
            event(log, logging.WARNING, "keys of tokens cannot be fetched", url=source.url, reason=problem)
        for policy in self._policies.values():
            if source in _sources(policy):
                self._noted(policy.origin)

    def _look(self) -> None:
        if self._wanted <= self._tried:
            self._all_tried.set()
        else:
            self._all_tried.clear()


def _sources(policy: TokenPolicy) -> Iterator[KeySource]:
    return (source for _, source in _paths(policy))


def _paths(policy: TokenPolicy) -> Iterator[tuple[str, KeySource]]:
    for index, rule in enumerate(policy.rules):
        if rule.source is not None:
            yield f"spec.jwtRules[{index}]", rule.source
