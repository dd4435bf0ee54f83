"""The answer of `ambit why` as lines for people."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from ambit.cli.confirmation import AGREES, NONE, UNCLEAR, Confirmation
from ambit.cli.render.output import printable
from ambit.core.names import CONVERTED_STRICT_POLICY, ONLY_BY_WAYPOINT
from ambit.ingest.istio.peer import CONVERTED_PREFIX, Mode
from ambit.insight.leading import Part, RequestAnswer
from ambit.insight.ruling import ALLOWED, ASKED, REFUSED, Otherwise, Ruling
from ambit.insight.why import Answer
from ambit.policy.decide import NO_ALLOW_MATCHED, Reason
from ambit.policy.nearest import Miss

_BY_RULE = (Reason.ALLOWED_BY_RULE.value, Reason.DENIED_BY_RULE.value)
_COLOURS = {ALLOWED: "green", ASKED: "yellow"}


def answer_lines(answer: Answer, confirmations: Sequence[Confirmation] = ()) -> Iterator[str]:
    """`confirmations`: one for each ruling (of all parts), or none when records were not asked."""
    verdict = click.style(answer.verdict.upper(), fg=_COLOURS.get(answer.verdict, "red"))
    yield f"{printable(answer.source)} → {printable(answer.destination)}: {verdict}"
    yield from _connection(answer, confirmations)
    done = 0
    for part in answer.parts:
        several = confirmations[done : done + len(part.answer.rulings)]
        done += len(part.answer.rulings)
        yield ""
        yield f"{part.percent:g} %: {part.answer.verdict}"
        yield from (f"  {line}" if line else "" for line in _connection(part.answer, several))


def _connection(answer: Answer, confirmations: Sequence[Confirmation]) -> Iterator[str]:
    if answer.waypoint:
        yield f"by way of waypoint {printable(answer.waypoint)}, which is who endpoints see"
    for index, ruling in enumerate(answer.rulings):
        yield from _at(ruling)
        if index < len(confirmations):
            yield f"  {printable(_confirmation(confirmations[index]))}"
    if answer.findings:
        yield ""
        yield from (printable(each) for each in answer.findings)


def request_lines(answer: RequestAnswer, confirmations: Sequence[Confirmation] = ()) -> Iterator[str]:
    """`confirmations`: one, or one of each part, or none when records were not asked."""
    verdict = click.style(answer.verdict.upper(), fg=_COLOURS.get(answer.verdict, "red"))
    yield f"{printable(answer.source)} → {printable(answer.request)}: {verdict}"
    if answer.parts:
        yield from _parts(answer.parts, confirmations)
        return
    yield from _request(answer)
    for each in confirmations:
        yield ""
        yield printable(_confirmation(each, "request"))


def _parts(parts: Sequence[Part], confirmations: Sequence[Confirmation] = ()) -> Iterator[str]:
    for index, part in enumerate(parts):
        yield ""
        yield f"{part.percent:g} %: {part.answer.verdict}"
        yield from (f"  {line}" if line else "" for line in _request(part.answer))
        if index < len(confirmations):
            yield f"  {printable(_confirmation(confirmations[index], 'request'))}"


def _request(answer: RequestAnswer) -> Iterator[str]:
    if answer.connection is not None:
        yield printable(answer.reason)
        yield ""
        yield from answer_lines(answer.connection)
        return
    reader = "the client's own node proxy (inline)"
    if answer.waypoint or answer.gateway:
        reader = f"waypoint {answer.waypoint}" if answer.waypoint else f"gateway {answer.gateway}"
    yield f"read by {printable(reader)}"
    if answer.policy is not None:
        is_nobody = answer.gateway and not answer.policy.identity
        yield f"  asked {'without identity' if is_nobody else _asked(answer.policy)}"
        yield from (f"  {printable(line)}" for line in _ruling(answer.policy))
    if answer.route:
        origin = f" of {answer.origin}" if answer.origin else ""
        yield f"meets rule {printable(answer.route)}{printable(origin)}: {printable(answer.met)}"
    if answer.reason:
        yield printable(answer.reason)
    for share in answer.shares:
        yield ""
        yield f"{share.percent:g} % to {printable(share.backend)}: {printable(share.reason or share.verdict)}"
        for ruling in share.rulings:
            yield from (f"  {line}" for line in _at(ruling) if line)
        yield from (f"  {line}" for line in _parts(share.parts) if line)


def _at(ruling: Ruling) -> Iterator[str]:
    if ruling.pod:
        yield ""
        kind = "pod" if ruling.is_pod else "endpoint"
        yield f"{kind} {printable(ruling.pod)} ({ruling.address} port {ruling.port}), asked {_asked(ruling)}"
    for line in _ruling(ruling):
        yield f"  {printable(line)}"


def _asked(ruling: Ruling) -> str:
    if not ruling.identity:
        return "in plain text, without identity"
    return f"as {ruling.identity.removeprefix('spiffe://')}"


def _ruling(ruling: Ruling) -> Iterator[str]:
    by = f" by {ruling.rule}" if ruling.rule not in ("", NO_ALLOW_MATCHED) else ""
    converted = ruling.rule.partition("/")[2].startswith((CONVERTED_STRICT_POLICY, CONVERTED_PREFIX))
    strict = f", because {_strict(ruling)}" if converted else ""
    if ruling.rule.partition("/")[2].startswith(ONLY_BY_WAYPOINT):
        strict = ", because a policy protects it at its waypoint, and only that may call it"
    # The rule's own name says as much.
    reason = "" if by and ruling.reason in _BY_RULE else f": {ruling.reason}"
    asked = ruling.verdict == ASKED
    for each in ruling.asks:
        yield f"asks {each}"
    yield f"{'if it may: allowed' if asked else ruling.verdict}{by}{reason}{strict}"
    if ruling.audited:
        yield f"audited by {', '.join(ruling.audited)}"
    if ruling.mode and not converted:
        yield f"plain text itself is {_plain_text(ruling)}"
    if ruling.without:
        yield f"without that rule it would be {ruling.without}"
    if ruling.nearest is not None:
        yield f"nearest {ruling.nearest.action} rule: {_nearest(ruling.nearest, ruling.reason)}"
    elif ruling.verdict != REFUSED and ruling.pod and not ruling.of_request:
        yield "no rule would decide otherwise"
    if ruling.token:
        yield f"tokens: {ruling.token}"
    if ruling.dry_run:
        yield f"with the dry-run policies enforced it would be {ruling.dry_run}"
    if ruling.policies:
        yield f"policies that apply: {', '.join(ruling.policies)}"


def _strict(ruling: Ruling) -> str:
    return f"{ruling.mode_by} makes mutual TLS STRICT" if ruling.mode_by else "mutual TLS is STRICT"


def _plain_text(ruling: Ruling) -> str:
    if ruling.mode == Mode.STRICT:
        return f"refused: {_strict(ruling)}"
    by = (
        f"{ruling.mode_by} makes mutual TLS PERMISSIVE"
        if ruling.mode_by
        else "no PeerAuthentication forbids it"
    )
    return f"accepted: {by}"


def _nearest(found: Otherwise, reason: str) -> str:
    if not found.misses:
        first = "CUSTOM" if reason == Reason.NOBODY_TO_ASK.value else "DENY"
        return f"{found.rule}, which holds, but {first} goes first"
    return f"{found.rule}, but {'; '.join(map(_miss, found.misses))}"


def _miss(miss: Miss) -> str:
    if not miss.field:
        return "nothing can match it"
    wanted = " or ".join(miss.wanted)
    if miss.field.startswith("not"):
        others = "callers without an identity" if wanted == "*" else f"all but {wanted}"
        return f"it is for {others} ({miss.field}), here is {miss.actual}"
    return f"{miss.field} must be {wanted}, here {miss.actual or 'there is none'}"


def _confirmation(found: Confirmation, what: str = "connection") -> str:
    if found.records == NONE:
        return f"records: no such {what} among the newest"
    time = datetime.fromtimestamp(found.time, UTC).astimezone().strftime("%H:%M:%S")
    by = f" by {found.rule}" if found.rule else ""
    said = f"{found.verdict}{by} at {time} on {found.node}"
    if found.records == AGREES:
        return f"records: the same, {said}"
    if found.records == UNCLEAR:
        return f"records: {said}; records have no headers, so that may have been another request"
    return f"records: DIFFERENT, {said}; the configuration may have changed since"
