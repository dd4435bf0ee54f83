"""What the admission policy lets a node agent's token write, judged by its own expressions."""

import cel
import pytest

from ambit.core.names import NOT_CAPTURED_ANNOTATION, REDIRECTION_ANNOTATION, TRUST_ANNOTATION
from tests.charts.rendered import golden_objects


def expression(message: str) -> str:
    """The rule whose refusal says this."""
    [policy] = [
        each
        for each in golden_objects()
        if each["kind"] == "ValidatingAdmissionPolicy" and each["metadata"]["name"] == "ambit-node"
    ]
    [found] = [each["expression"] for each in policy["spec"]["validations"] if message in each["message"]]
    return str(found)


@pytest.mark.parametrize(
    ("allowed", "before", "after"),
    [
        (True, {}, {REDIRECTION_ANNOTATION: "enabled"}),
        (True, {"other": "x", REDIRECTION_ANNOTATION: "enabled"}, {"other": "x"}),
        (True, {}, {REDIRECTION_ANNOTATION: "pending", NOT_CAPTURED_ANNOTATION: "why"}),
        (True, {"other": "x", TRUST_ANNOTATION: "old"}, {"other": "x", TRUST_ANNOTATION: "new"}),
        (False, {}, {"other": "x"}),
        (False, {"other": "x"}, {"other": "y", TRUST_ANNOTATION: "new"}),
        (False, {"other": "x"}, {TRUST_ANNOTATION: "new"}),
    ],
)
def test_an_agent_writes_its_own_annotations_only(
    allowed: bool, before: dict[str, str], after: dict[str, str]
) -> None:
    variables = {"variables": {"before": before, "after": after}}
    assert cel.evaluate(expression("no annotation but"), variables) is allowed
