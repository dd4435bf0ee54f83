"""Interfaces of a pod behind which it has virtual machines or containers of its own: what enters over them counts as
sent by the pod (annotation istio.io/reroute-virtual-interfaces; Istio: cni/pkg/iptables).

A name is left out, and what enters there is inbound traffic as ever, when it is none that the kernel allows, or that of
loopback or of the interface with the pod's own address: everybody's traffic would have the pod's identity.
"""

import logging
import re

import msgspec

from ambit.node.enrol.sandbox import Sandbox
from ambit.node.netns import identity

_log = logging.getLogger("ambit.enrol")
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
LOOPBACK = "lo"


def without_own(sandbox: Sandbox) -> Sandbox:
    """The sandbox with those of its `interfaces` that may be used. Blocks briefly. Raises OSError."""
    if not sandbox.interfaces:
        return sandbox
    own = identity.interfaces(sandbox.netns, sandbox.addresses) | {LOOPBACK}
    used = tuple(each for each in sandbox.interfaces if _NAME.fullmatch(each) and each not in own)
    for each in set(sandbox.interfaces) - set(used):
        why = "the pod's own" if each in own else "no name of an interface"
        _log.warning("pod %s/%s: %r is not rerouted, it is %s", *sandbox.key, each, why)
    return msgspec.structs.replace(sandbox, interfaces=used)
