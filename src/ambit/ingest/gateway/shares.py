"""What one namespace may add to a gateway by its ListenerSets (Gateway API `ListenerSetSpec`: "An implementation MAY
reject listeners", reason `TooManyListeners`).

A listener with a certificate costs 80 KiB of the gateway's Envoy, and who may write ListenerSets in one namespace can
write thousands of them. The Gateway's own listeners are its owner's to count.
"""

from collections import Counter

from ambit.ingest.gateway.conditions import ACCEPTED, no
from ambit.model.status import Condition
from ambit.objects import gateway

MOST = 512
"""Listeners of one namespace at one gateway, in all of its sets: 40 MiB of the 512 that a gateway's pod has."""
TOO_MANY = "TooManyListeners"


class Shares:
    """Of the namespaces that add listeners to a gateway. Those that come first are first asked for."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def refusal(self, namespace: str, given: gateway.Listener) -> Condition | None:
        """Of a listener that its namespace has no room for."""
        taken = self._taken[namespace]
        if taken + _size(given) <= MOST:
            return None
        several = f", and this one counts {_size(given)}" if _size(given) > 1 else ""
        text = (
            f"namespace {namespace} has {taken} of the {MOST} listeners that it may add to the Gateway{several}: "
            "delete some, or use a Gateway of your own"
        )
        return no(ACCEPTED, TOO_MANY, text)

    def take(self, namespace: str, given: gateway.Listener) -> None:
        """One more, which is accepted."""
        self._taken[namespace] += _size(given)


def _size(given: gateway.Listener) -> int:
    """A listener counts as often as it has certificates: each takes memory of its own."""
    return max(1, len(given.tls.certificate_refs) if given.tls is not None else 0)
