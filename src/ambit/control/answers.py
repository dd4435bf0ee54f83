"""What the nodes of all replicas have said about policies, in a form that replicas can tell each other. No I/O.

Revisions of a store mean something in its own process only. So a replica says of each of its nodes up to which
resource version of the API's policies it has what was compiled from them: those are the same for every replica, and
numbers that grow (Kubernetes API concepts, "Resource versions").
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from ambit.core.finding import ObjectRef

LIMIT = 150_000
"""Bytes of a report: a ConfigMap holds 1 MiB, and several replicas write into one."""
ERROR_LENGTH = 300
"""Characters of a node's reason that are told."""
ROUTES = 100
"""Refused routes of which a replica tells."""
BATCHES = 200
"""Batches that are remembered. A node that is behind all of them counts as one that has nothing."""


class Progress(msgspec.Struct, frozen=True):
    """How far nodes are: how many there are, and which lag or have rejected."""

    nodes: int
    behind: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """What one stream of a node says about one policy. `error` is why it rejected it."""

    node: str
    behind: bool = False
    error: str = ""


class Standing(msgspec.Struct, frozen=True):
    """Where one stream of a node stands: the newest revision that it acknowledged by type, and why it rejected what."""

    node: str
    acknowledged: Mapping[str, int]
    rejected: Mapping[str, str] = {}


class Group(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nodes that have what was compiled up to these resource versions, by kind."""

    nodes: tuple[str, ...]
    seen: dict[str, int] = {}


class Refusal(msgspec.Struct, frozen=True):
    """Nodes that rejected these policies for this reason."""

    nodes: tuple[str, ...]
    policies: tuple[str, ...]
    error: str


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one replica says of the nodes that are connected to it."""

    groups: tuple[Group, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    routes: dict[str, str] = {}
    """Of routes that its proxies have refused, by the text of their objects, why."""

    def answers(self, kind: str, version: int, names: Collection[str]) -> Iterator[Answer]:
        """About the policies with these names, which were compiled from an object of that kind and version."""
        errors = {
            node: refusal.error
            for refusal in self.refusals
            if not set(names).isdisjoint(refusal.policies)
            for node in refusal.nodes
        }
        for group in self.groups:
            behind = group.seen.get(kind, -1) < version
            for node in group.nodes:
                yield Answer(node, behind, errors.get(node, ""))


def joined(answers: Iterable[Answer], expected: Collection[str] = ()) -> Progress:
    """The answers of all streams of all replicas. An `expected` node that says nothing lags; of several streams of a
    node each one counts."""
    connected, behind, rejected = set(), set(), set()
    for answer in answers:
        connected.add(answer.node)
        if answer.behind:
            behind.add(answer.node)
        elif answer.error:
            rejected.add(f"{answer.node} ({answer.error})")
    behind |= {f"{node} (not connected)" for node in set(expected) - connected}
    return Progress(len(connected.union(expected)), tuple(sorted(behind)), tuple(sorted(rejected)))


class History:
    """Which revisions of this replica's store hold everything up to which resource versions."""

    def __init__(self) -> None:
        self._batches: deque[tuple[Mapping[str, int], Mapping[str, int]]] = deque(maxlen=BATCHES)

    def add(self, versions: Mapping[str, int], revisions: Mapping[str, int]) -> None:
        """The store's `revisions` by type hold what was compiled from policies up to `versions` by kind."""
        if self._batches and self._batches[-1][1] == revisions:
            # Nodes are sent nothing for it.
            self._batches.pop()
        self._batches.append((dict(versions), dict(revisions)))

    def seen(self, acknowledged: Mapping[str, int]) -> Mapping[str, int]:
        """Up to which versions who acknowledged these revisions has everything; empty for nothing."""

        def lacks(batch: tuple[Mapping[str, int], Mapping[str, int]]) -> bool:
            return any(acknowledged.get(each, -1) < revision for each, revision in batch[1].items())

        # Revisions only grow: who lacks a batch lacks all that follow.
        held = bisect_left(self._batches, True, key=lacks)
        return self._batches[held - 1][0] if held else {}


def report_of(standings: Iterable[Standing], history: History) -> Report:
    """What a replica has to say of its streams; of several streams of a node, what all of them have."""
    seen: dict[str, Mapping[str, int]] = {}
    errors: dict[tuple[str, str], set[str]] = {}
    for standing in standings:
        found = history.seen(standing.acknowledged)
        other = seen.get(standing.node)
        if other is not None:
            found = {kind: min(found[kind], other[kind]) for kind in found.keys() & other.keys()}
        seen[standing.node] = found
        for policy, error in standing.rejected.items():
            errors.setdefault((standing.node, error[:ERROR_LENGTH]), set()).add(policy)
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for node, versions in seen.items():
        groups.setdefault(tuple(sorted(versions.items())), []).append(node)
    refusals: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (node, error), policies in errors.items():
        refusals.setdefault((tuple(sorted(policies)), error), []).append(node)
    return Report(
        tuple(Group(tuple(sorted(nodes)), dict(key)) for key, nodes in sorted(groups.items())),
        tuple(
            Refusal(tuple(sorted(nodes)), policies, error)
            for (policies, error), nodes in sorted(refusals.items())
        ),
    )


def with_routes(report: Report, refused: Mapping[ObjectRef, str]) -> Report:
    """The report with some of the routes that were refused."""
    told = {str(each): refused[each][:ERROR_LENGTH] for each in sorted(refused)[:ROUTES]}
    return msgspec.structs.replace(report, routes=told)


def encode(report: Report, limit: int = LIMIT) -> str:
    """A report as text; empty when there is nothing to say. Nodes that would make it longer than `limit` bytes are
    left out, those with rejections first, so they count as not connected: nothing is ever left out of what is said
    of a node."""
    refusing = {node for refusal in report.refusals for node in refusal.nodes}
    nodes = sorted(
        (node for group in report.groups for node in group.nodes), key=lambda node: node in refusing
    )
    while nodes:
        text = msgspec.json.encode(_only(report, frozenset(nodes)))
        if len(text) <= limit:
            return text.decode()
        nodes = nodes[: len(nodes) * 3 // 4]
    return msgspec.json.encode(Report(routes=report.routes)).decode() if report.routes else ""


def _only(report: Report, nodes: Collection[str]) -> Report:
    groups = ((tuple(node for node in each.nodes if node in nodes), each) for each in report.groups)
    refusals = ((tuple(node for node in each.nodes if node in nodes), each) for each in report.refusals)
    return Report(
        tuple(msgspec.structs.replace(each, nodes=left) for left, each in groups if left),
        tuple(msgspec.structs.replace(each, nodes=left) for left, each in refusals if left),
        report.routes,
    )


def decode(text: str) -> Report:
    """The contrary of `encode`. What cannot be read says nothing of any node."""
    try:
        return msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Report()
