"""The answer of `ambit why` as lines for people."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from ambit.cli.confirmation import AGREES, NONE, Confirmation
from ambit.cli.render.output import printable
from ambit.core.identity import Identity
from ambit.core.names import CONVERTED_STRICT_POLICY
from ambit.ingest.istio.peer import CONVERTED_PREFIX
from ambit.insight.why import ALLOWED, REFUSED, Answer, Otherwise, Ruling
from ambit.policy.decide import NO_ALLOW_MATCHED, Reason
from ambit.policy.nearest import Miss

_BY_RULE = (Reason.ALLOWED_BY_RULE.value, Reason.DENIED_BY_RULE.value)
_COLOURS = {ALLOWED: "green"}


def answer_lines(answer: Answer, confirmations: Sequence[Confirmation] = ()) -> Iterator[str]:
    """`confirmations`: one for each ruling, or none when records were not asked."""
    verdict = click.style(answer.verdict.upper(), fg=_COLOURS.get(answer.verdict, "red"))
    yield f"{printable(answer.source)} → {printable(answer.destination)}: {verdict}"
    for index, ruling in enumerate(answer.rulings):
        if ruling.pod:
            yield ""
            kind = "pod" if ruling.is_pod else "endpoint"
            yield f"{kind} {printable(ruling.pod)} ({ruling.address} port {ruling.port}), asked {_asked(ruling)}"
        for line in _ruling(ruling):
            yield f"  {printable(line)}"
        if index < len(confirmations):
            yield f"  {printable(_confirmation(confirmations[index]))}"
    if answer.findings:
        yield ""
        yield from (printable(each) for each in answer.findings)


def _asked(ruling: Ruling) -> str:
    if not ruling.identity:
        return "in plain text, without identity"
    return f"as {Identity.parse(ruling.identity).principal}"


def _ruling(ruling: Ruling) -> Iterator[str]:
    by = f" by {ruling.rule}" if ruling.rule not in ("", NO_ALLOW_MATCHED) else ""
    converted = ruling.rule.partition("/")[2].startswith((CONVERTED_STRICT_POLICY, CONVERTED_PREFIX))
    strict = ", because mutual TLS is STRICT" if converted else ""
    # The rule's own name says as much.
    reason = "" if by and ruling.reason in _BY_RULE else f": {ruling.reason}"
    yield f"{ruling.verdict}{by}{reason}{strict}"
    if ruling.without:
        yield f"without that rule it would be {ruling.without}"
    if ruling.nearest is not None:
        yield f"nearest {ruling.nearest.action} rule: {_nearest(ruling.nearest)}"
    elif ruling.verdict != REFUSED and ruling.pod:
        yield "no rule would decide otherwise"
    if ruling.dry_run:
        yield f"with the dry-run policies enforced it would be {ruling.dry_run}"
    if ruling.policies:
        yield f"policies that apply: {', '.join(ruling.policies)}"


def _nearest(found: Otherwise) -> str:
    if not found.misses:
        return f"{found.rule}, which holds, but DENY goes first"
    return f"{found.rule}, but {'; '.join(map(_miss, found.misses))}"


def _miss(miss: Miss) -> str:
    if not miss.field:
        return "nothing can match it"
    wanted = " or ".join(miss.wanted)
    if miss.field.startswith("not"):
        others = "callers without an identity" if wanted == "*" else f"all but {wanted}"
        return f"it is for {others} ({miss.field}), here is {miss.actual}"
    return f"{miss.field} must be {wanted}, here {miss.actual or 'there is none'}"


def _confirmation(found: Confirmation) -> str:
    if found.records == NONE:
        return "records: no such connection among the newest"
    time = datetime.fromtimestamp(found.time, UTC).astimezone().strftime("%H:%M:%S")
    by = f" by {found.rule}" if found.rule else ""
    said = f"{found.verdict}{by} at {time} on {found.node}"
    if found.records == AGREES:
        return f"records: the same, {said}"
    return f"records: DIFFERENT, {said}; the configuration may have changed since"
