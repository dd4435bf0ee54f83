"""Whether a pod that has not started is captured without NAT (`ambit.node.capture.transparent`).

Not when
1. its annotation says so (`ambit.io/capture: nat`), or what reaches it is not captured: its answers must then leave,
   and routing cannot tell them from what it opens;
2. it may change its own network (NET_ADMIN, privileged), or gets further interfaces (Multus, virtual machines): with
   rules that it does not expect its own would not work;
3. somebody else's routing rules are in its namespace, or addresses that are not its own.
A running pod is captured with NAT: what it has open is not routed anew there. But one that is captured without it
stays so, also when nobody but its namespace remembers, because the agent's state was lost.
"""

import logging

import msgspec

from ambit.core.names import CAPTURE_ANNOTATION
from ambit.node.enrol.pods import Pod
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.netns import steering

_log = logging.getLogger("ambit.enrol")
NAT = "nat"


def chosen(sandbox: Sandbox, pod: Pod) -> Sandbox:
    """The sandbox, to be captured without NAT when that is possible. Blocks briefly."""
    reason = objection(pod) or _objection_there(sandbox)
    if reason:
        _log.info("pod %s/%s is captured by NAT: %s", *sandbox.key, reason)
    return msgspec.structs.replace(sandbox, transparent=not reason)


def kept(sandbox: Sandbox) -> Sandbox:
    """The sandbox of a running pod, captured as its namespace is. Blocks briefly. Raises EnvironmentProblem."""
    return msgspec.structs.replace(sandbox, transparent=steering.is_in_place(sandbox.netns))


def objection(pod: Pod) -> str:
    """What the pod's object says against it; empty when nothing."""
    if pod.metadata.annotations.get(CAPTURE_ANNOTATION, "").lower() == NAT:
        return f"its annotation {CAPTURE_ANNOTATION} says so"
    if not pod.captures_inbound:
        return "what reaches it is not captured"
    return pod.own_network


def _objection_there(sandbox: Sandbox) -> str:
    try:
        return steering.objection(sandbox.netns, sandbox.addresses)
    except OSError as problem:
        return f"its namespace does not tell: {problem.strerror or problem}"
